"""Names: SRV records and addresses, asked of the DNS servers that the system names.

Owns: how long an answer may take, and how much of it counts.
Never: believes an answer: DNS is not authenticated here, so whoever asks has to have what is found
    prove itself.
Follows: RFC 2782; the search list of resolv.conf, as Go's resolver does.
"""

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, final

import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from kvsecure.model.host_names import host_name_of

__all__ = ["LookupFailed", "Place", "addresses_of", "places_of", "system_resolver"]

_ANSWER_S_MAX: Final = 5.0
_SHOWN_CHARACTERS_MAX: Final = 253


@final
class LookupFailed(Exception):
    """There is no answer, or none that can be used; the text says why."""


@final
class Place(NamedTuple):
    """Where a service is.

    Attributes:
        host: A name in lower case, without the dot at its end.
        port: From 1 to 65535.
    """

    host: str
    port: int


def system_resolver() -> dns.resolver.Resolver:
    """Return what asks the DNS servers in /etc/resolv.conf.

    Raises:
        LookupFailed: None is named there.
    """
    try:
        return dns.resolver.Resolver()
    except dns.exception.DNSException as error:
        raise LookupFailed(_why(error)) from None


def places_of(
    service: str,
    domain: str,
    *,
    places_max: int,
    resolver: dns.resolver.Resolver | None = None,
    answer_s_max: float = _ANSWER_S_MAX,
) -> tuple[Place, ...]:
    """Return where a service of a domain is, over TCP: the SRV records, the preferred ones first.

    Records of equal priority come by weight, the heaviest first, and then by name: whoever asks
    gets the same order.

    Args:
        service: Such as `etcd-server`.
        domain: Whose; one that does not end in a dot is looked for as resolv.conf says.
        places_max: How many there may be.
        resolver: Whom to ask; the system's if left out.
        answer_s_max: Seconds until it is given up, whatever is tried.

    Raises:
        LookupFailed: There are none, too many, or nobody has said.
    """
    name = f"_{service}._tcp.{domain}"

    def ask(asked: dns.resolver.Resolver) -> dns.resolver.Answer:
        return asked.resolve(name, dns.rdatatype.SRV, lifetime=answer_s_max, search=True)

    records = [record for record in _asked(name, ask, resolver) if isinstance(record, SRV)]
    # RFC 2782: a single dot says that the service is not there.
    records = [record for record in records if record.target != dns.name.root]
    if not records:
        raise LookupFailed(f"{name}: there is no such service")
    if len(records) > places_max:
        raise LookupFailed(f"{name}: {len(records)} records, of {places_max} at most")
    records.sort(key=lambda each: (each.priority, -each.weight, each.target, each.port))
    return tuple(dict.fromkeys(_place(name, record) for record in records))


def addresses_of(
    host: str,
    *,
    resolver: dns.resolver.Resolver | None = None,
    answer_s_max: float = _ANSWER_S_MAX,
) -> frozenset[str]:
    """Return the IP addresses of a host; of an address, itself.

    Args:
        host: A name or an IP address without brackets.
        resolver: Whom to ask; the system's if left out.
        answer_s_max: Seconds until it is given up, for either kind of address.

    Raises:
        LookupFailed: Nobody has said.
    """
    try:
        return frozenset({str(ipaddress.ip_address(host))})
    except ValueError:
        pass
    found: set[str] = set()
    failure = LookupFailed(f"{_shown(host)}: it has no address")
    for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):

        def ask(asked: dns.resolver.Resolver, kind: Any = kind) -> dns.resolver.Answer:
            return asked.resolve(host, kind, lifetime=answer_s_max, search=True)

        try:
            found |= {
                str(ipaddress.ip_address(each.to_text())) for each in _asked(host, ask, resolver)
            }
        except LookupFailed as error:
            failure = error
    if not found:
        raise failure
    return frozenset(found)


def _asked(
    name: str,
    ask: Callable[[dns.resolver.Resolver], dns.resolver.Answer],
    resolver: dns.resolver.Resolver | None,
) -> Iterable[Any]:
    """Return the records of an answer.

    Raises:
        LookupFailed: There is none.
    """
    try:
        return tuple(ask(resolver or system_resolver()))
    except (dns.exception.DNSException, OSError, ValueError) as error:
        raise LookupFailed(f"{_shown(name)}: {_why(error)}") from None


def _place(name: str, record: SRV) -> Place:
    # In lower case: some servers give back the question's own mixture of cases.
    host = host_name_of(record.target.to_text(omit_final_dot=True))
    if host is None or not record.port:
        raise LookupFailed(f"{name}: a record does not name a host and a port")
    return Place(host, record.port)


def _why(error: Exception) -> str:
    match error:
        case dns.resolver.NXDOMAIN() | dns.resolver.NoAnswer():
            return "there is no such record"
        case dns.exception.Timeout():
            return "no DNS server has answered in time"
        case dns.resolver.NoNameservers():
            return "no DNS server could tell"
        case dns.resolver.NoResolverConfiguration():
            return "no DNS server is named in /etc/resolv.conf"
        case _:
            return "it cannot be asked for"


def _shown(name: str) -> str:
    """Return a name, short and on one line."""
    return "".join(c if c.isprintable() else "?" for c in name[:_SHOWN_CHARACTERS_MAX])
