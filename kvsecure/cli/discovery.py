"""Endpoints by DNS: where the members are, for somebody who only knows the domain.

Owns: which SRV records are asked for, and which of what they say is dialled.
Never: trusts a record: the member has to show a certificate for the name in it, and without an
    authority of one's own that name has to be the domain's.
Follows: etcdctl's --discovery-srv; differs: records for plaintext are left out unless they are
    asked for, and names of other domains unless an authority is named, because a public one
    certifies everybody.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import click

from kvsecure.cli.failures import CommandFailure, ExitStatus

if TYPE_CHECKING:
    import dns.resolver

__all__ = ["Records", "endpoints_of"]

_PLACES_MAX: Final = 64


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Which SRV records name the members.

    Attributes:
        domain: Whose.
        service_name: Tells the clusters of one domain apart; empty for the only one.
        with_plaintext: Whether members without TLS count.
    """

    domain: str
    service_name: str = ""
    with_plaintext: bool = False

    @property
    def services(self) -> tuple[tuple[str, str], ...]:
        """What an endpoint begins with, and the service that names it; in order."""
        suffix = f"-{self.service_name}" if self.service_name else ""
        return (("", f"etcd-client-ssl{suffix}"), ("http://", f"etcd-client{suffix}"))


def endpoints_of(
    records: Records,
    *,
    has_authority: bool,
    answer_s_max: float,
    resolver: "dns.resolver.Resolver | None" = None,
) -> tuple[str, ...]:
    """Return the endpoints that the records name, the preferred ones first.

    What is left out is told on stderr.

    Args:
        records: Which.
        has_authority: Whether members are believed by an authority that was named.
        answer_s_max: Seconds for each of the two questions.
        resolver: Whom to ask; the system's if left out.

    Raises:
        CommandFailure: There is none that may be dialled.
    """
    from kvsecure.lookup import LookupFailed, places_of

    found: list[str] = []
    failures: list[str] = []
    for scheme, service in records.services:
        try:
            places = places_of(
                service,
                records.domain,
                places_max=_PLACES_MAX,
                resolver=resolver,
                answer_s_max=answer_s_max,
            )
        except LookupFailed as error:
            failures.append(str(error))
            continue
        for place in places:
            endpoint = f"{scheme}{place.host}:{place.port}"
            doubt = _doubt(records, scheme, place.host, has_authority=has_authority)
            if doubt:
                click.echo(f"Left out: {endpoint}, {doubt}", err=True)
            else:
                found.append(endpoint)
    if not found:
        why = "; ".join(failures) if len(failures) == len(records.services) else "see above"
        raise CommandFailure(
            f"no endpoint was found in {records.domain}: {why}", status=ExitStatus.NO_ANSWER
        )
    return tuple(found)


def _doubt(records: Records, scheme: str, host: str, *, has_authority: bool) -> str:
    """Tell why an endpoint is not dialled, if so."""
    if scheme and not records.with_plaintext:
        return "which has no TLS (--insecure-discovery takes it)"
    domain = records.domain.lower().removesuffix(".")
    if not has_authority and host != domain and not host.endswith(f".{domain}"):
        return "which is in another domain: anybody could have a certificate (give --cacert)"
    return ""
