"""Settings of a connection: what is understood, and what is refused before anything is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.client import Client, Endpoint, Secret, Settings, SettingsError, Tls

__all__: list[str] = []

_PASSWORD = Secret.of_text("a password nobody uses")


def _settings(endpoint: str, **more: object) -> Settings:
    return Settings(endpoints=(Endpoint.parse(endpoint),), **more)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("text", "target", "plaintext"),
    [
        ("127.0.0.1:2379", "127.0.0.1:2379", False),
        ("https://host.example:443", "host.example:443", False),
        ("https://host.example:443/", "host.example:443", False),
        ("http://localhost:2379", "localhost:2379", True),
        ("host", "host:2379", False),
        ("[::1]:2380", "[::1]:2380", False),
        ("[::1]", "[::1]:2379", False),
    ],
)
def test_endpoint_is_understood(*, text: str, target: str, plaintext: bool) -> None:
    """An endpoint uses TLS unless it says http, and port 2379 unless it says another."""
    endpoint = Endpoint.parse(text)

    assert (endpoint.target, endpoint.plaintext) == (target, plaintext)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://host",
        "host:0",
        "host:65536",
        "host:port",
        "user@host:1",
        "http://host/path",
        "[::zz]:1",
        "a b",
        "unix:///run/socket",
    ],
)
def test_endpoint_is_refused(text: str) -> None:
    """What is not an endpoint is refused."""
    with pytest.raises(SettingsError):
        Endpoint.parse(text)


@given(st.text())
def test_endpoint_parsing_is_total(text: str) -> None:
    """Any text is an endpoint or a `SettingsError`, and what was read is read the same again."""
    try:
        endpoint = Endpoint.parse(text)
    except SettingsError:
        return

    assert Endpoint.parse(str(endpoint)) == endpoint


def test_endpoints_are_split_at_commas() -> None:
    """One text may hold several endpoints."""
    endpoints = Settings.parse_endpoints(["a:1, b:2", "c:3"])

    assert [endpoint.target for endpoint in endpoints] == ["a:1", "b:2", "c:3"]


@pytest.mark.parametrize(
    "credential", [{"user": "u", "password": _PASSWORD}, {"token": Secret(b"abc")}]
)
def test_credentials_never_cross_the_network_in_clear(credential: dict[str, object]) -> None:
    """A password or token goes to a plaintext endpoint only on this machine."""
    with pytest.raises(SettingsError, match="clear"):
        _settings("http://host.example:1", **credential)
    for local in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        _settings(local, **credential)


def test_password_needs_a_user() -> None:
    """A password without a name could log nobody in."""
    with pytest.raises(SettingsError, match="user"):
        _settings("a:1", password=_PASSWORD)


def test_certificate_needs_its_key() -> None:
    """A certificate without a key, or the reverse, is a mistake that is said at once."""
    with pytest.raises(SettingsError, match="go together"):
        Tls(certificate_file="a.crt")


@pytest.mark.parametrize("token", [b"", b"two words", b"line\nbreak", b"\xff"])
def test_token_with_foreign_characters_is_refused_without_being_shown(token: bytes) -> None:
    """A token that no header can carry is refused here, because the transport would quote it."""
    with pytest.raises(SettingsError) as refused:
        _settings("a:1", token=Secret(token))

    assert "two words" not in str(refused.value)


def test_password_must_be_text() -> None:
    """A password that is not UTF-8 is refused before it is sent."""
    with pytest.raises(SettingsError, match="UTF-8"):
        _settings("a:1", user="u", password=Secret(b"\xff"))


def test_login_name_carries_a_named_tenant() -> None:
    """A user of a named tenant logs in as `tenant/user`; the default tenant is not written."""
    assert _settings("a:1", user="u", tenant="acme").login_name == "acme/u"
    assert _settings("a:1", user="u", tenant="default").login_name == "u"
    assert _settings("a:1", user="u").login_name == "u"


def test_settings_do_not_show_secrets() -> None:
    """The text of settings holds neither password nor token."""
    settings = _settings("a:1", user="u", password=_PASSWORD, token=Secret(b"tokentokentoken"))

    assert "nobody" not in repr(settings)
    assert "tokentoken" not in repr(settings)


def test_settings_need_an_endpoint() -> None:
    """A client without an endpoint is refused when it is made."""
    with pytest.raises(SettingsError, match="endpoint"):
        Client.open([])


@pytest.mark.parametrize("name", ["timeout_s", "connect_timeout_s", "keepalive_s"])
def test_times_must_be_positive(name: str) -> None:
    """A bound of nothing would fail every call."""
    with pytest.raises(SettingsError, match=name):
        _settings("a:1", **{name: 0.0})
