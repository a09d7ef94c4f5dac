"""Profiles: stated in full, never contradicting themselves, never wider than the shipped ones."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.pki.identity import Kind
from kvsecure.pki.profiles import (
    ExtendedUsage,
    KeyType,
    KeyUsage,
    ProfileError,
    ProfileName,
    duration_text,
    load_profile,
    parse_duration,
    shipped_profile,
    shipped_profile_path,
)


def _altered(tmp_path: Path, name: ProfileName, old: str, new: str) -> Path:
    """Write a copy of a shipped profile with one thing changed."""
    text = shipped_profile_path(name).read_text()
    assert old in text
    path = tmp_path / f"{name.value}.yaml"
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("name", "days", "days_max", "usages", "uri"),
    [
        (ProfileName.AUTHORITY, 3650, 3650, set(), None),
        (ProfileName.SERVER, 90, 397, {ExtendedUsage.SERVER_AUTH}, None),
        (ProfileName.PEER, 90, 397, set(ExtendedUsage), Kind.NODE),
        (ProfileName.CLIENT, 90, 397, {ExtendedUsage.CLIENT_AUTH}, Kind.USER),
    ],
)
def test_shipped_profile_gives_what_the_documentation_says(
    name: ProfileName, days: int, days_max: int, usages: set[ExtendedUsage], uri: Kind | None
) -> None:
    """The shipped profiles are the ones of docs/pki.md."""
    profile = shipped_profile(name)

    assert (timedelta(days=days), timedelta(days=days_max)) == (
        profile.ttl_default,
        profile.ttl_max,
    )
    assert usages == profile.extended_key_usage
    assert profile.uri is uri
    assert profile.key_type is KeyType.EC_P256


@pytest.mark.parametrize("name", list(ProfileName))
def test_only_the_authority_signs(name: ProfileName) -> None:
    """No other profile gives the usage, or the constraints, of an authority."""
    profile = shipped_profile(name)

    signs = name is ProfileName.AUTHORITY
    assert (KeyUsage.KEY_CERT_SIGN in profile.key_usage) is signs
    assert (profile.path_length is not None) is signs


@pytest.mark.parametrize("name", list(ProfileName))
def test_load_profile_takes_an_untouched_copy(name: ProfileName) -> None:
    """What was copied for the operator is not wider than itself."""
    assert shipped_profile(name) == load_profile(name, shipped_profile_path(name))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (ProfileName.CLIENT, "ttl_default: 90d", "ttl_default: 1d"),
        (ProfileName.CLIENT, "ttl_max: 397d", "ttl_max: 90d"),
        (ProfileName.CLIENT, "ec-p256", "ed25519"),
        (ProfileName.PEER, "dns: any", "dns: [.internal]"),
        (ProfileName.PEER, "dns: any", "dns: none"),
        (ProfileName.PEER, "ip: any", "ip: [10.0.0.0/8]"),
        (ProfileName.SERVER, 'hosts_default: [localhost, 127.0.0.1, "::1"]', "hosts_default: []"),
    ],
)
def test_load_profile_takes_a_tightened_copy(
    tmp_path: Path, name: ProfileName, old: str, new: str
) -> None:
    """An operator may shorten lifetimes, narrow hosts and choose the other key."""
    assert load_profile(name, _altered(tmp_path, name, old, new)) != shipped_profile(name)


@pytest.mark.parametrize(
    ("name", "old", "new", "field"),
    [
        (ProfileName.CLIENT, "ttl_max: 397d", "ttl_max: 398d", "ttl_max"),
        (ProfileName.CLIENT, "[client_auth]", "[client_auth, server_auth]", "extended_key_usage"),
        (ProfileName.CLIENT, "[digital_signature]", "[digital_signature, crl_sign]", "key_usage"),
        (ProfileName.CLIENT, "dns: none", "dns: any", "dns"),
        (ProfileName.CLIENT, "ip: none", "ip: [10.0.0.0/8]", "ip"),
        (ProfileName.CLIENT, "uri: ", "uri: none # ", "uri"),
        (
            ProfileName.CLIENT,
            '"spiffe://{tenant}.{cluster}.kvsecure/user/{name}"',
            '"spiffe://{cluster}.kvsecure/node/{name}"',
            "uri",
        ),
        (ProfileName.AUTHORITY, "path_length: 0 ", "path_length: 1 ", "path_length"),
        (
            ProfileName.AUTHORITY,
            'uri_permitted:\n  - "{cluster}.kvsecure"\n  - ".{cluster}.kvsecure"',
            "uri_permitted: []",
            "uri_permitted",
        ),
    ],
)
def test_load_profile_refuses_a_widened_copy(
    tmp_path: Path, name: ProfileName, old: str, new: str, field: str
) -> None:
    """Nothing that an authority's directory says can give more than the shipped profile."""
    path = _altered(tmp_path, name, old, new)

    with pytest.raises(ProfileError, match=rf"{path}: {field} is wider"):
        load_profile(name, path)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("format: 1", "format: 2", "format '2'"),
        ("profile: server", "profile: client", "is the profile 'client'"),
        ("ttl_max: 397d", "ttl_max: 12h", "ttl_default is longer"),
        ("ttl_max: 397d", "ttl_max: [397d]", "ttl_max is not a duration"),
        ("ttl_max: 397d", "ttl_max: 1y", "'1y' is not a duration"),
        ("ttl_max: 397d", "# none", "lacks ttl_max"),
        ("ttl_max: 397d", "ttl_max: 397d\nwildcards: yes", "no profile has: wildcards"),
        ("key_type: ec-p256", "key_type: rsa-2048", "key_type has 'rsa-2048'"),
        ("[server_auth]", "[any]", "extended_key_usage has 'any'"),
        ("[server_auth]", "server_auth", "extended_key_usage is not a list"),
        ("[server_auth]", "[[server_auth]]", "extended_key_usage has"),
        ("[digital_signature]", "[]", "key_usage is empty"),
        ("[digital_signature]", "[key_cert_sign]", "path_length goes with"),
        ("path_length: none", "path_length: -1", "path_length is neither"),
        ("path_length: none", "path_length: yes", "path_length is neither"),
        ("path_length: none", "path_length: 0", "path_length goes with"),
        ("dns: any", "dns: none", "hosts_default has localhost"),
        ("ip: any", "ip: [10.0.0.0/8]", "hosts_default has 127.0.0.1"),
        ("dns: any", "dns: ['*.internal']", "wildcard"),
        ("uri: none", "uri: 'spiffe://{cluster}/x'", "uri is neither"),
        ("uri_permitted: []", "uri_permitted: [example.org]", "uri_permitted has"),
        ("uri_permitted: []", "uri_permitted: {}", "uri_permitted is not a list"),
        ("format: 1", "- 1", "is not YAML"),
        ("format: 1", "format: 1\nformat: &a [*a]", "is not YAML"),
    ],
)
def test_load_profile_names_the_fault(tmp_path: Path, old: str, new: str, fault: str) -> None:
    """A profile that cannot be used is refused with its file and what is wrong in it."""
    path = _altered(tmp_path, ProfileName.SERVER, old, new)

    with pytest.raises(ProfileError) as caught:
        load_profile(ProfileName.SERVER, path)

    assert str(caught.value).startswith(f"{path}: ")
    assert fault in str(caught.value)


@given(content=st.one_of(st.binary(), st.text().map(str.encode)))
def test_load_profile_is_total(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Any content that is not a profile is a ProfileError, tags and all."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)

    with pytest.raises(ProfileError):
        load_profile(ProfileName.SERVER, path)


@pytest.mark.parametrize(
    "content",
    [
        b"!!python/object/apply:os.system [true]",
        b"!!int ''",
        b"!!timestamp x",
        b"[" * 100_000,
        b"",
        b"\xff\xfe\x00",
    ],
)
def test_load_profile_survives_hostile_yaml(tmp_path: Path, content: bytes) -> None:
    """Tags construct nothing, and depth is an error."""
    path = tmp_path / "server.yaml"
    path.write_bytes(content)

    with pytest.raises(ProfileError):
        load_profile(ProfileName.SERVER, path)


def test_load_profile_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A profile that was removed is missed, not replaced by the shipped one."""
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(ProfileName.SERVER, tmp_path / "server.yaml")


@given(minutes=st.integers(1, 999_999))
def test_duration_text_is_read_back(minutes: int) -> None:
    """A duration in whole minutes survives being written."""
    duration = timedelta(minutes=minutes)

    assert duration == parse_duration(duration_text(duration))


@pytest.mark.parametrize(
    "text", ["", "90", "d", "0d", "-1d", "1.5d", "1w", "90D", " 90d", "90d\n", "1d1h", "9999999d"]
)
def test_parse_duration_refuses_everything_else(text: str) -> None:
    """A duration is a positive number and one of d, h, m."""
    with pytest.raises(ProfileError):
        parse_duration(text)
