"""Where the server listens: plaintext stays at home."""

import pytest
from server.command_line import configured, refused

from kvsecure.server.config import ConfigError

TLS = ("--cert-file=server.crt", "--key-file=server.key")


def listening(*urls: str) -> tuple[str, str]:
    """Return the flags to listen on the URLs."""
    return f"--listen-client-urls={','.join(urls)}", "--advertise-client-urls=https://kv.test:2379"


def test_listen_uses_a_certificate_that_is_there() -> None:
    """With a certificate the default URLs are https."""
    config = configured(*TLS)

    assert [endpoint.url for endpoint in config.listen.client] == ["https://localhost:2379"]
    assert config.member.advertise_client_urls == ("https://localhost:2379",)
    assert config.warnings == ()


def test_listen_without_advertise_is_refused() -> None:
    """Who says where to listen says what to advertise; the text is etcd's."""
    text = refused("--listen-client-urls=http://127.0.0.1:1")

    assert text == "--advertise-client-urls is required when --listen-client-urls is set explicitly"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://127.9.9.9:1", "http://[::1]:1", "http://localhost:1"]
)
def test_listen_plaintext_on_loopback_is_allowed(url: str) -> None:
    """What cannot leave the machine may be readable."""
    config = configured(*listening(url))

    assert [endpoint.url for endpoint in config.listen.client] == [url]


@pytest.mark.parametrize(
    "url",
    [
        "http://0.0.0.0:1",
        "http://[::]:1",
        "http://10.0.0.1:1",
        "http://[::ffff:a00:1]:1",
        "http://[fe80::1]:1",
    ],
)
@pytest.mark.parametrize(
    "flag", ["--listen-client-urls", "--listen-metrics-urls", "--listen-client-http-urls"]
)
def test_listen_plaintext_beyond_loopback_is_refused_on_every_listener(url: str, flag: str) -> None:
    """Clients' and metrics' listeners alike; the text names both ways out."""
    text = refused(f"{flag}={url}", "--advertise-client-urls=http://10.0.0.1:1")

    assert url in text
    assert "--allow-insecure-listeners" in text


def test_listen_plaintext_beyond_loopback_is_loud_when_insisted_on() -> None:
    """The operator's word is enough, and the log repeats it."""
    config = configured(*listening("http://0.0.0.0:1"), "--allow-insecure-listeners")

    assert config.listen.client[0].port == 1
    (warning,) = config.warnings
    assert "readable on the network" in warning


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            listening("https://127.0.0.1:1"),
            (
                "TLS key/cert (--cert-file, --key-file) must be provided for client url "
                "https://127.0.0.1:1 with HTTPS scheme"
            ),
        ),
        (
            ("--listen-metrics-urls=https://127.0.0.1:1",),
            (
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics "
                "secure url https://127.0.0.1:1"
            ),
        ),
        (("--cert-file=c",), "--cert-file and --key-file must be given together"),
        (("--key-file=k",), "--cert-file and --key-file must be given together"),
        (
            listening("http://example.com:1"),
            "expected IP in URL for binding (http://example.com:1)",
        ),
        (listening("http://:1"), "expected IP in URL for binding (http://:1)"),
        (
            listening("http://[fe80::1%eth0]:1"),
            "addresses with a zone cannot be listened on (http://[fe80::1%eth0]:1)",
        ),
        (
            ("--listen-client-urls=", "--advertise-client-urls=http://127.0.0.1:1"),
            "--listen-client-urls must name at least one URL",
        ),
        (
            listening("unixs://a.sock"),
            (
                "TLS key/cert (--cert-file, --key-file) must be provided for client url "
                "unixs://a.sock with HTTPS scheme"
            ),
        ),
        (
            (*listening("unix:///run/kv"), "--listen-metrics-urls=unix:///run/x/../kv"),
            "two listeners cannot share one address: unix:///run/kv",
        ),
        (
            (*listening("http://127.0.0.1:1"), "--listen-metrics-urls=http://127.0.0.1:1"),
            "two listeners cannot share one address: http://127.0.0.1:1",
        ),
    ],
)
def test_listen_that_cannot_work_is_refused_at_once(flags: tuple[str, ...], text: str) -> None:
    """A listener that could not start later is an error now, in etcd's words where it has them."""
    assert refused(*flags) == text


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("127.0.0.1:1", "URL scheme must be http, https, unix, or unixs: 127.0.0.1:1"),
        ("ftp://127.0.0.1:1", "URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:1"),
        ("http://127.0.0.1:1/", "URL must not contain a path: http://127.0.0.1:1/"),
        ("http://127.0.0.1", 'URL address does not have the form "host:port": http://127.0.0.1'),
        ("http://::1:1", 'URL address does not have the form "host:port": http://::1:1'),
        ("http://127.0.0.1:", "URL port is not a number from 0 to 65535: http://127.0.0.1:"),
        (
            "http://127.0.0.1:65536",
            "URL port is not a number from 0 to 65535: http://127.0.0.1:65536",
        ),
        ("http://127.0.0.1:1?a", "URL must be scheme, host and port only: http://127.0.0.1:1?a"),
        ("http://a:b@h:1", "URL must be scheme, host and port only: http://...@h:1"),
        ("unix://", "URL of a unix socket must name a file: unix://"),
        ("unix:a", "URL of a unix socket must name a file: unix:a"),
        ("unix:///run/", "URL of a unix socket must name a file: unix:///run/"),
        ("unix://@abstract", "URL of a unix socket must be a path only: unix://...@abstract"),
        ("unix:///run/a%20b", "URL of a unix socket must be a path only: unix:///run/a%20b"),
        (
            f"unix:///{'a' * 107}",
            f"the path of a unix socket may have 107 bytes: unix:///{'a' * 107}",
        ),
        ("http://127.0.0.1:1 2", "URL must be printable ASCII without spaces"),
        ("http://[::1:1", "not a URL: http://[::1:1"),
        (",".join(f"http://127.0.0.1:{port}" for port in range(65)), "at most 64 URLs"),
    ],
)
def test_url_that_is_none_is_refused_with_status_two(url: str, reason: str) -> None:
    """URLs are checked with the flags, in etcd's words; passwords are not repeated."""
    with pytest.raises(ConfigError) as caught:
        configured(f"--listen-client-urls={url}")

    assert str(caught.value).endswith(f"for flag -listen-client-urls: {reason}")
    assert caught.value.status == 2


def test_listen_urls_are_taken_once_and_in_order() -> None:
    """Repeated URLs are one; their order says nothing."""
    config = configured(
        *listening("http://127.0.0.2:1", "http://127.0.0.1:1", "http://127.0.0.2:1")
    )

    assert [endpoint.host for endpoint in config.listen.client] == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("unix:///run/kv.sock", "/run/kv.sock"),
        ("unix://kv.sock", "kv.sock"),
        ("unix://localhost:2379", "localhost:2379"),
        ("unix://localhost:2379/a", "localhost:2379/a"),
        (f"unix:///{'a' * 106}", f"/{'a' * 106}"),
    ],
)
def test_listen_on_a_unix_socket_names_its_file(url: str, path: str) -> None:
    """What stands behind the slashes is the file, as etcd has it; nothing of it is a network."""
    config = configured(*listening(url))

    (endpoint,) = config.listen.client
    assert (str(endpoint.path), endpoint.loopback, endpoint.url) == (path, True, url)
    assert config.warnings == ()


def test_listen_on_a_unix_socket_with_tls_needs_a_certificate_and_no_network() -> None:
    """A unix socket may speak TLS, and may be what is advertised."""
    config = configured(
        *TLS, "--listen-client-urls=unixs://a", "--advertise-client-urls=unixs://a,unix://b"
    )

    assert config.listen.client[0].scheme.is_secure
    assert config.member.advertise_client_urls == ("unix://b", "unixs://a")


@pytest.mark.parametrize(
    "urls",
    [("http://127.0.0.1:1", "https://127.0.0.1:1"), ("unix://a", "unixs://a")],
)
def test_listen_with_tls_and_plaintext_on_one_address_is_allowed(urls: tuple[str, str]) -> None:
    """Both schemes of one address are one listener, where plaintext alone would be allowed."""
    config = configured(*TLS, *listening(*urls))

    first, second = config.listen.client
    assert first.address == second.address


def test_listen_with_plaintext_on_a_tls_port_of_the_network_is_refused() -> None:
    """TLS beside it does not make plaintext unreadable."""
    text = refused(*TLS, *listening("http://0.0.0.0:1", "https://0.0.0.0:1"))

    assert "http://0.0.0.0:1 would be readable on the network" in text


@pytest.mark.parametrize("flag", ["--listen-metrics-urls", "--listen-client-http-urls"])
def test_listen_at_one_address_for_two_purposes_is_refused(flag: str) -> None:
    """Other pages cannot be served under another scheme of the same address."""
    text = refused(*TLS, *listening("https://127.0.0.1:1"), f"{flag}=http://127.0.0.1:1")

    assert text == "two listeners cannot share one address: http://127.0.0.1:1"


def test_listen_by_default_advertises_what_was_said() -> None:
    """An address for clients may be given without one to listen on."""
    config = configured("--advertise-client-urls=http://kv.test:1")

    assert [endpoint.url for endpoint in config.listen.client] == ["http://localhost:2379"]
    assert config.member.advertise_client_urls == ("http://kv.test:1",)


def test_listen_at_a_port_of_the_systems_choice_may_be_said_twice() -> None:
    """Port 0 is another port each time."""
    config = configured(
        *listening("http://127.0.0.1:0"), "--listen-metrics-urls=http://127.0.0.1:0"
    )

    assert [endpoint.port for endpoint in config.listen.everything] == [0, 0]


def test_listen_http_beside_a_certificate_is_warned_about() -> None:
    """The certificate is not used there, and the log says so, as etcd's does."""
    config = configured(*TLS, *listening("http://127.0.0.1:1", "https://127.0.0.1:2"))

    (warning,) = config.warnings
    assert "the scheme of client url http://127.0.0.1:1 is http" in warning
