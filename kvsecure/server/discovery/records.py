"""The first members as SRV records name them.

Owns: which of the records is this member's, and how the others are called until they say it.
Never: takes a name from DNS: a record has none, and a member's name is in its certificate.
Follows: etcd's SRV discovery: records of both services count, a record with this member's address
    is its own, the others are called 0, 1, 2; differs: a record is this member's by its text before
    anybody is asked for addresses, and numbers are not given twice.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, final
from urllib.parse import urlsplit

import dns.resolver

from kvsecure.lookup import LookupFailed, Place, addresses_of, places_of
from kvsecure.model.host_names import host_name_of
from kvsecure.model.limits import MEMBERS_MAX
from kvsecure.server.config.model import SrvDiscovery
from kvsecure.server.discovery.failure import DiscoveryFailed
from kvsecure.telemetry.log import log

__all__ = ["members_of_records"]

_ANSWER_S_MAX: Final = 5.0
_ANSWERS_S_MAX: Final = 30.0

_log = log("discovery")


@final
class _Found(NamedTuple):
    """One record."""

    scheme: str
    service: str
    place: Place

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.place.host}:{self.place.port}"


def members_of_records(
    discovery: SrvDiscovery,
    name: str,
    own_urls: Sequence[str],
    *,
    resolver: dns.resolver.Resolver | None = None,
    answers_s_max: float = _ANSWERS_S_MAX,
) -> Mapping[str, tuple[str, ...]]:
    """Return the peer URLs of the first members: of this one by its name, of others by a number.

    Args:
        discovery: Where to look.
        name: This member's.
        own_urls: Where this member is, in its own words.
        resolver: Whom to ask; the system's if left out.
        answers_s_max: Seconds for all questions together, but for the last one's few.

    Raises:
        DiscoveryFailed: There are no records, or none that is this member's.
    """
    asking = _Asking(resolver, time.monotonic() + answers_s_max)
    found = _records(discovery, asking)
    own = _own(found, own_urls, asking)
    if not own:
        raise DiscoveryFailed(
            f'error setting up initial cluster: cannot find local etcd member "{name}" in SRV '
            f"records: {','.join(each.url for each in found)}"
        )
    for record, url in own.items():
        if record.scheme != urlsplit(url).scheme:
            raise DiscoveryFailed(
                f"bootstrap at {record.url} from DNS for {record.service} has scheme mismatch with "
                f"expected peer {url}"
            )
    missing = sorted(set(own_urls) - set(own.values()))
    if missing:
        raise DiscoveryFailed(
            f"--initial-advertise-peer-urls has {','.join(missing)} but missing from SRV records"
        )
    numbers = _numbers(name)
    others = {next(numbers): (record.url,) for record in found if record not in own}
    return {name: tuple(sorted(record.url for record in own)), **others}


@final
class _Asking:
    """Questions that end in time, together."""

    def __init__(self, resolver: dns.resolver.Resolver | None, end_s: float) -> None:
        self._resolver = resolver
        self._end_s = end_s

    def places(self, service: str, domain: str) -> tuple[Place, ...]:
        return places_of(
            service,
            domain,
            places_max=MEMBERS_MAX,
            resolver=self._resolver,
            answer_s_max=_ANSWER_S_MAX,
        )

    def addresses(self, host: str) -> frozenset[str]:
        """Return a host's addresses; none if nobody says, which is in the log."""
        if time.monotonic() > self._end_s:
            _log.warning("there is no time left to ask for a host's address", host=host)
            return frozenset()
        try:
            return addresses_of(host, resolver=self._resolver, answer_s_max=_ANSWER_S_MAX)
        except LookupFailed as error:
            _log.warning("a host has no address", error=str(error))
            return frozenset()


def _records(discovery: SrvDiscovery, asking: _Asking) -> list[_Found]:
    found: list[_Found] = []
    failures = []
    for scheme, service in discovery.services:
        try:
            places = asking.places(service, discovery.domain)
        except LookupFailed as error:
            failures.append(str(error))
            continue
        found += (_Found(scheme, service, place) for place in places)
    # Either service may be missing (etcd).
    if not found:
        raise DiscoveryFailed(
            "error setting up initial cluster: error querying DNS SRV records: "
            + "; ".join(failures)
        )
    _log.info("got bootstrap from DNS", members=[each.url for each in found])
    return found


def _own(found: Sequence[_Found], own_urls: Sequence[str], asking: _Asking) -> dict[_Found, str]:
    """Return which records are this member's, with the URL that says so."""
    named = {_place(url): url for url in own_urls}
    own = {each: named[each.place] for each in found if each.place in named}
    ports = {place.port for place, url in named.items() if url not in own.values()}
    if not ports:
        return own
    # What is left may be called otherwise in DNS: then it has the same address.
    addressed = {
        (address, place.port): url
        for place, url in named.items()
        if url not in own.values()
        for address in asking.addresses(place.host)
    }
    for each in found:
        if each in own or each.place.port not in ports:
            continue
        for address in asking.addresses(each.place.host):
            url = addressed.get((address, each.place.port))
            if url is not None:
                own[each] = url
    return own


def _place(url: str) -> Place:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return Place(host_name_of(host) or host, parts.port or 0)


def _numbers(name: str) -> Iterator[str]:
    """Yield names for those whose name is not known; none of them is ours."""
    number = 0
    while True:
        if str(number) != name:
            yield str(number)
        number += 1
