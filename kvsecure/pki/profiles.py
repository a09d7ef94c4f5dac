"""Profiles: what each sort of certificate gives, and the widest it may ever be.

Owns: the format of a profile, its checks, and how long a lifetime may be asked for.
Never: takes a value that the file does not state; a missing field is an error and not a default.
Keeps: a profile that was read from an authority's directory is nowhere wider than the shipped one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar, final

import yaml

from kvsecure.bundled import resource
from kvsecure.pki.files import UnsafeFile, read_public
from kvsecure.pki.hosts import DnsRule, Host, HostError, IpRule, dns_rule, ip_rule, parse_host
from kvsecure.pki.identity import URI_TEMPLATES, Kind

__all__ = [
    "ExtendedUsage",
    "KeyType",
    "KeyUsage",
    "Profile",
    "ProfileError",
    "ProfileName",
    "duration_text",
    "load_profile",
    "parse_duration",
    "shipped_profile",
    "shipped_profile_path",
]

_FORMAT: Final = "1"
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([dhm])")
_UNITS: Final = MappingProxyType(
    {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
)
_PATH_LENGTH: Final = re.compile(r"[0-9]")
_CLUSTER_HOST: Final = re.compile(r"\.?\{cluster\}\.kvsecure")

_Member = TypeVar("_Member", bound=Enum)


@final
class ProfileError(Exception):
    """A profile cannot be used; the text names the file, the field and the fault."""


class ProfileName(Enum):
    """The sorts of certificate; the value is the name of the file."""

    AUTHORITY = "authority"
    SERVER = "server"
    PEER = "peer"
    CLIENT = "client"


class KeyType(Enum):
    """Kinds of key; RSA is not among them: it is slow and of many strengths."""

    EC_P256 = "ec-p256"
    ED25519 = "ed25519"


class KeyUsage(Enum):
    """RFC 5280 section 4.2.1.3, those that a profile may give."""

    DIGITAL_SIGNATURE = "digital_signature"
    KEY_CERT_SIGN = "key_cert_sign"
    CRL_SIGN = "crl_sign"


class ExtendedUsage(Enum):
    """RFC 5280 section 4.2.1.12, those that a profile may give."""

    SERVER_AUTH = "server_auth"
    CLIENT_AUTH = "client_auth"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What certificates of one sort are like.

    `path_length` is None for what is not an authority; `uri` is None where no URI is given.
    `uri_permitted` are hosts of URIs below an authority, with `{cluster}` in them.
    """

    name: ProfileName
    key_type: KeyType
    ttl_default: timedelta
    ttl_max: timedelta
    key_usage: frozenset[KeyUsage]
    extended_key_usage: frozenset[ExtendedUsage]
    path_length: int | None
    hosts_default: tuple[Host, ...]
    dns: DnsRule
    ip: IpRule
    uri: Kind | None
    uri_permitted: tuple[str, ...]

    def admits(self, host: Host) -> bool:
        """Tell whether a certificate of this profile may name a host."""
        return self.dns.admits(host) if isinstance(host, str) else self.ip.admits(host)

    def first_excess(self, wider: "Profile") -> str | None:
        """Return the first field in which this profile is wider than another, or None."""
        within = {
            "profile": self.name is wider.name,
            "ttl_max": self.ttl_max <= wider.ttl_max,
            "key_usage": self.key_usage <= wider.key_usage,
            "extended_key_usage": self.extended_key_usage <= wider.extended_key_usage,
            "path_length": _path_length_within(self.path_length, wider.path_length),
            "dns": self.dns.is_within(wider.dns),
            "ip": self.ip.is_within(wider.ip),
            "uri": self.uri is wider.uri,
            "uri_permitted": _permitted_within(self.uri_permitted, wider.uri_permitted),
        }
        return next((field for field, holds in within.items() if not holds), None)


def parse_duration(text: str) -> timedelta:
    """Return the duration that a text such as 90d, 24h or 30m stands for.

    Raises:
        ProfileError: It stands for none.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ProfileError(f"{text!r} is not a duration: write it as 90d, 24h or 30m")
    return int(match[1]) * _UNITS[match[2]]


def duration_text(duration: timedelta) -> str:
    """Return the shortest text that `parse_duration` reads as this duration; seconds are lost."""
    for letter in ("d", "h"):
        if duration % _UNITS[letter] == timedelta():
            return f"{duration // _UNITS[letter]}{letter}"
    return f"{duration // _UNITS['m']}m"


def shipped_profile_path(name: ProfileName) -> Path:
    """Return where the profile is that came with this installation."""
    return resource("pki", "profiles", f"{name.value}.yaml")


def shipped_profile(name: ProfileName) -> Profile:
    """Return the profile that came with this installation: the widest there may be.

    Raises:
        ProfileError: The installation is damaged.
    """
    return _parse_file(name, shipped_profile_path(name))


def load_profile(name: ProfileName, path: Path) -> Profile:
    """Return an authority's own version of a profile.

    Raises:
        ProfileError: It cannot be read, is not a profile, or is wider than the shipped one.
    """
    profile = _parse_file(name, path)
    field = profile.first_excess(shipped_profile(name))
    if field is not None:
        raise ProfileError(f"{path}: {field} is wider than the shipped profile allows")
    return profile


def _parse_file(name: ProfileName, path: Path) -> Profile:
    try:
        # The plainest loader: texts, lists and mappings, whatever tags the file has.
        fields = yaml.load(read_public(path), Loader=yaml.BaseLoader)  # noqa: S506 - see above
    except (OSError, UnsafeFile) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ProfileError(f"{path}: is not YAML") from None
    try:
        return _parse(name, fields)
    except (ProfileError, HostError) as error:
        raise ProfileError(f"{path}: {error}") from None


def _parse(name: ProfileName, fields: object) -> Profile:
    if not isinstance(fields, dict):
        raise ProfileError("is not a mapping of fields")
    known = set(Profile.__dataclass_fields__) - {"name"} | {"format", "profile"}
    _check_fields(fields, known)
    if fields["format"] != _FORMAT:
        raise ProfileError(f"format {fields['format']!r} is not known here")
    if fields["profile"] != name.value:
        raise ProfileError(f"is the profile {fields['profile']!r} and not {name.value}")
    profile = Profile(
        name=name,
        key_type=_member(KeyType, "key_type", fields["key_type"]),
        ttl_default=_duration(fields, "ttl_default"),
        ttl_max=_duration(fields, "ttl_max"),
        key_usage=_members(KeyUsage, "key_usage", fields["key_usage"]),
        extended_key_usage=_members(
            ExtendedUsage, "extended_key_usage", fields["extended_key_usage"]
        ),
        path_length=_path_length(fields["path_length"]),
        hosts_default=tuple(parse_host(text) for text in _texts(fields, "hosts_default")),
        dns=dns_rule(fields["dns"]),
        ip=ip_rule(fields["ip"]),
        uri=_uri_kind(fields["uri"]),
        uri_permitted=_texts(fields, "uri_permitted"),
    )
    _check_agreement(profile)
    return profile


def _check_fields(fields: Mapping[object, object], known: set[str]) -> None:
    missing = sorted(known - set(fields))
    if missing:
        raise ProfileError(f"lacks {', '.join(missing)}")
    surplus = sorted(str(field) for field in fields if field not in known)
    if surplus:
        raise ProfileError(f"has fields that no profile has: {', '.join(surplus)}")


def _check_agreement(profile: Profile) -> None:
    """Refuse fields that contradict each other."""
    if profile.ttl_default > profile.ttl_max:
        raise ProfileError("ttl_default is longer than ttl_max")
    signs = KeyUsage.KEY_CERT_SIGN in profile.key_usage
    if signs is not (profile.path_length is not None):
        raise ProfileError("path_length goes with key_cert_sign, and only with it")
    if not profile.key_usage:
        raise ProfileError("key_usage is empty, so the key would be for nothing")
    refused = [str(host) for host in profile.hosts_default if not profile.admits(host)]
    if refused:
        raise ProfileError(f"hosts_default has {refused[0]}, which its own rules refuse")
    if not all(_CLUSTER_HOST.fullmatch(host) for host in profile.uri_permitted):
        raise ProfileError(
            "uri_permitted has something else than {cluster}.kvsecure with or "
            "without a dot before it"
        )


def _duration(fields: Mapping[str, object], field: str) -> timedelta:
    value = fields[field]
    if not isinstance(value, str):
        raise ProfileError(f"{field} is not a duration such as 90d")
    return parse_duration(value)


def _texts(fields: Mapping[str, object], field: str) -> tuple[str, ...]:
    value = fields[field]
    if not isinstance(value, list):
        raise ProfileError(f"{field} is not a list of texts")
    texts = tuple(entry for entry in value if isinstance(entry, str))
    if len(texts) != len(value):
        raise ProfileError(f"{field} is not a list of texts")
    return texts


def _member(members: type[_Member], field: str, value: object) -> _Member:
    try:
        return members(value)
    except ValueError:
        choices = ", ".join(str(member.value) for member in members)
        raise ProfileError(f"{field} has {value!r}, which is none of: {choices}") from None


def _members(members: type[_Member], field: str, value: object) -> frozenset[_Member]:
    if not isinstance(value, list):
        raise ProfileError(f"{field} is not a list")
    return frozenset(_member(members, field, entry) for entry in value)


def _path_length(value: object) -> int | None:
    if value == "none":
        return None
    if not isinstance(value, str) or not _PATH_LENGTH.fullmatch(value):
        raise ProfileError("path_length is neither none nor a number from 0 to 9")
    return int(value)


def _uri_kind(value: object) -> Kind | None:
    if value == "none":
        return None
    for kind, template in URI_TEMPLATES.items():
        if value == template:
            return kind
    raise ProfileError("uri is neither none nor one of the two templates of identities")


def _path_length_within(own: int | None, wider: int | None) -> bool:
    if own is None or wider is None:
        return own is wider
    return own <= wider


def _permitted_within(own: tuple[str, ...], wider: tuple[str, ...]) -> bool:
    # An empty list permits everything (RFC 5280), so it is only within another empty one.
    return set(own) <= set(wider) and bool(own) is bool(wider)
