"""Hosts in certificates: DNS names and IP addresses, and which of them a profile lets through.

Owns: the grammar of a host, and the rule that admits one.
Never: asks DNS.
Follows: RFC 1123 section 2.1 for names; wildcards are refused everywhere.
"""

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, final

__all__ = [
    "Address",
    "Admission",
    "DnsRule",
    "Host",
    "HostError",
    "IpRule",
    "Network",
    "dns_rule",
    "ip_rule",
    "parse_host",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# A DNS name in lower case, or an address.
Host = str | Address

_DNS_CHARACTERS_MAX: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@final
class HostError(Exception):
    """A text is not a host or a rule for hosts; the text says why."""


class Admission(Enum):
    """How a rule admits hosts."""

    ANY = "any"
    NONE = "none"
    LISTED = "listed"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DnsRule:
    """Which DNS names are admitted; a suffix starts with a dot and stands for names below it."""

    admission: Admission
    listed: tuple[str, ...] = ()

    def admits(self, name: str) -> bool:
        """Tell whether the rule lets a name through."""
        if self.admission is not Admission.LISTED:
            return self.admission is Admission.ANY
        return any(
            name.endswith(entry) and name != entry if entry.startswith(".") else name == entry
            for entry in self.listed
        )

    def is_within(self, wider: "DnsRule") -> bool:
        """Tell whether everything this rule admits, the other one admits too."""
        if self.admission is Admission.LISTED and wider.admission is Admission.LISTED:
            return all(entry in wider.listed or wider.admits(entry) for entry in self.listed)
        return self.admission is Admission.NONE or wider.admission is Admission.ANY


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class IpRule:
    """Which addresses are admitted."""

    admission: Admission
    listed: tuple[Network, ...] = ()

    def admits(self, address: Address) -> bool:
        """Tell whether the rule lets an address through."""
        if self.admission is not Admission.LISTED:
            return self.admission is Admission.ANY
        return any(address in network for network in self.listed)

    def is_within(self, wider: "IpRule") -> bool:
        """Tell whether everything this rule admits, the other one admits too."""
        if self.admission is Admission.LISTED and wider.admission is Admission.LISTED:
            return all(any(_contains(outer, net) for outer in wider.listed) for net in self.listed)
        return self.admission is Admission.NONE or wider.admission is Admission.ANY


def parse_host(text: str) -> Host:
    """Return the address or the DNS name, in lower case, that a text stands for.

    Raises:
        HostError: It is neither, or it is a wildcard.
    """
    if "%" in text:
        raise HostError(f"{text!r} has a zone, which means nothing to another machine")
    try:
        return ip_address(text)
    except ValueError:
        return _parse_dns(text)


def dns_rule(value: object) -> DnsRule:
    """Return the rule that a profile states: `any`, `none`, or a list of names and .suffixes.

    Raises:
        HostError: It states none.
    """
    if not isinstance(value, list):
        return DnsRule(admission=_admission(value))
    if not all(isinstance(entry, str) for entry in value):
        raise HostError("a list of DNS names has something else in it")
    return DnsRule(
        admission=Admission.LISTED,
        listed=tuple(
            ("." if entry.startswith(".") else "") + _parse_dns(entry.removeprefix("."))
            for entry in value
        ),
    )


def ip_rule(value: object) -> IpRule:
    """Return the rule that a profile states: `any`, `none`, or a list of networks.

    Raises:
        HostError: It states none.
    """
    if not isinstance(value, list):
        return IpRule(admission=_admission(value))
    try:
        listed = tuple(ip_network(entry) for entry in value if isinstance(entry, str))
    except ValueError as error:
        raise HostError(f"a list of networks has something else in it: {error}") from None
    if len(listed) != len(value):
        raise HostError("a list of networks has something else in it")
    return IpRule(admission=Admission.LISTED, listed=listed)


def _admission(value: object) -> Admission:
    if value == Admission.ANY.value:
        return Admission.ANY
    if value == Admission.NONE.value:
        return Admission.NONE
    raise HostError(f"{value!r} is neither any nor none nor a list")


def _parse_dns(text: str) -> str:
    name = text.lower()
    if "*" in name:
        raise HostError(f"{text!r} is a wildcard, which would stand for hosts nobody has named")
    if not text.isascii():
        raise HostError(f"{text!r} is not ASCII: give its xn-- form")
    labels = name.split(".")
    if len(name) > _DNS_CHARACTERS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise HostError(f"{text!r} is neither a DNS name nor an address")
    # What ends in a number is an address to those who read it (URL standard, "ends in a number").
    if labels[-1].isdigit():
        raise HostError(f"{text!r} looks like an address and is none")
    return name


def _contains(outer: Network, inner: Network) -> bool:
    if isinstance(outer, IPv4Network) and isinstance(inner, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(outer, IPv6Network) and isinstance(inner, IPv6Network):
        return inner.subnet_of(outer)
    return False
