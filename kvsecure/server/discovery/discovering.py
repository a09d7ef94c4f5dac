"""Discovering: from the flags of discovery to a configuration that names the first members.

Owns: which way it is done, and that what was found fits this member as a list in flags has to.
Never: is done for a data directory that is there: whoever starts a member asks only at first.
Follows: docs/adr/0028-discovery.md.
Keeps: all founders begin with the same: with names where all have heard the same ones, and without
    any where each only knows its own.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple, final

import dns.resolver

from kvsecure.model.limits import MEMBERS_MAX
from kvsecure.server.config.build_cluster import check_duplicates
from kvsecure.server.config.build_peers import check_peer_url
from kvsecure.server.config.identity import cluster_id_of, member_id_of
from kvsecure.server.config.model import ServerConfig, SrvDiscovery, TokenDiscovery
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.discovery.failure import DiscoveryFailed
from kvsecure.server.discovery.meeting import meet
from kvsecure.server.discovery.records import members_of_records
from kvsecure.server.discovery.registry import Registry
from kvsecure.server.joining import KnownMember

__all__ = ["Discovered", "discover"]


@final
class Discovered(NamedTuple):
    """What was found.

    Attributes:
        config: The configuration as if flags had named the members.
        founders: The same members with their ids; without names if no other member knows them.
    """

    config: ServerConfig
    founders: tuple[KnownMember, ...]


def discover(config: ServerConfig, *, resolver: dns.resolver.Resolver | None = None) -> Discovered:
    """Find the first members; with a token this waits until all are there.

    Args:
        config: Says where to ask.
        resolver: Whom to ask for names; the system's if left out.

    Raises:
        DiscoveryFailed: It cannot be told who they are, or they cannot be.
    """
    match config.cluster.discovery:
        case SrvDiscovery() as discovery:
            name, urls = config.member.name, config.peers.advertise_urls
            members = members_of_records(discovery, name, urls, resolver=resolver)
            return _discovered(config, members, config.cluster.token, are_named=False)
        case TokenDiscovery() as discovery:
            return _discovered(config, _meet(config, discovery), discovery.token, are_named=True)
        case None:
            raise DiscoveryFailed("no flag says how the members are found")


def _meet(config: ServerConfig, discovery: TokenDiscovery) -> Mapping[str, tuple[str, ...]]:
    name, urls = config.member.name, sorted(set(config.peers.advertise_urls))
    text = ",".join(f"{name}={url}" for url in urls)
    with Registry(discovery) as registry:
        return meet(registry, discovery.token, member_id_of(urls, discovery.token), text)


def _discovered(
    config: ServerConfig,
    members: Mapping[str, tuple[str, ...]],
    token: str,
    *,
    are_named: bool,
) -> Discovered:
    """Hold what was found against what the flags would have to be.

    Raises:
        DiscoveryFailed: It does not fit.
    """
    try:
        check_duplicates(members, "discovery cluster")
        for url in (url for urls in members.values() for url in urls):
            check_peer_url(url, config.peers.tls)
    except ConfigError as error:
        raise DiscoveryFailed(str(error)) from None
    if len(members) > MEMBERS_MAX:
        raise DiscoveryFailed(f"{len(members)} members were found, of {MEMBERS_MAX} at most")
    ids = {name: member_id_of(urls, token) for name, urls in members.items()}
    founders = sorted(
        KnownMember(ids[name], name if are_named else "", tuple(sorted(set(urls))), (), False)
        for name, urls in members.items()
    )
    found = dataclasses.replace(
        config,
        cluster=dataclasses.replace(
            config.cluster,
            cluster_id=cluster_id_of(ids.values()),
            members=tuple(sorted(members.items())),
        ),
        member=dataclasses.replace(config.member, member_id=ids[config.member.name]),
    )
    return Discovered(found, tuple(founders))
