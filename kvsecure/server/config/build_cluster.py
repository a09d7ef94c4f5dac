"""The cluster as flags describe it: who its first members are, and where they are reached.

Owns: the rules between --initial-cluster and what this member says of itself.
Never: resolves a name, or looks whether the cluster is there.
Follows: etcd's checks of the initial cluster, with their texts; differs: a list that does not fit
    this member is refused at every start, not at the first alone.
"""

import re
from collections.abc import Mapping
from typing import Final

from kvsecure.model.limits import MEMBERS_MAX
from kvsecure.server.config.build_discovery import build_discovery
from kvsecure.server.config.identity import cluster_id_of, member_id_of
from kvsecure.server.config.model import Cluster, ClusterState
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.config.settings import Settings
from kvsecure.server.config.urls import parse_urls

__all__ = ["build_cluster", "check_duplicates", "check_member_name", "members_of"]

# The alphabets of the labels in our certificates (docs/pki.md): a name that no certificate can
# carry would fail much later.
_MEMBER_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_CLUSTER_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def check_member_name(name: str, flag: str) -> None:
    """Refuse a name that no certificate can carry.

    Args:
        name: A member's.
        flag: Where it stands.

    Raises:
        ConfigError: It is none.
    """
    if _MEMBER_NAME.fullmatch(name) is None or name in {".", ".."}:
        raise ConfigError(f"{flag} must have 1 to 128 letters, digits, dots, dashes or underscores")


def build_cluster(settings: Settings, name: str) -> Cluster:
    """Return the cluster as it is at first start.

    Raises:
        ConfigError: It cannot be, or this member is not in it as it says of itself.
    """
    label = settings.text("cluster-name")
    if _CLUSTER_NAME.fullmatch(label) is None:
        raise ConfigError(
            "--cluster-name must have 1 to 63 lower-case letters, digits or inner dashes"
        )
    token = settings.text("initial-cluster-token")
    own_urls = _own_urls(settings)
    state = ClusterState(settings.text("initial-cluster-state"))
    discovery = build_discovery(settings, state)
    members = {name: own_urls}
    if settings.given("initial-cluster"):
        members = members_of(settings.text("initial-cluster")) or members
    _check_own(members, name, own_urls)
    check_duplicates(members, "initial cluster")
    if len(members) > MEMBERS_MAX:
        raise ConfigError(f"--initial-cluster has {len(members)} members, of {MEMBERS_MAX} at most")
    return Cluster(
        name=label,
        cluster_id=cluster_id_of(member_id_of(urls, token) for urls in members.values()),
        token=token,
        state=state,
        members=tuple(sorted(members.items())),
        discovery=discovery,
        strict_reconfig_check=settings.switch("strict-reconfig-check"),
        stands_alone=settings.switch("force-new-cluster"),
    )


def _own_urls(settings: Settings) -> tuple[str, ...]:
    urls = settings.parts("initial-advertise-peer-urls")
    if not settings.given("initial-advertise-peer-urls") and settings.text("peer-cert-file"):
        # As for clients: a member with a certificate uses it.
        return ("https://localhost:2380",)
    if not urls:
        raise ConfigError("--initial-advertise-peer-urls must name at least one URL")
    return urls


def members_of(text: str) -> dict[str, tuple[str, ...]]:
    """Return peer URLs by member name, as often as they are listed; sorted, for ids and texts.

    Args:
        text: `NAME=URL,...`.

    Raises:
        ConfigError: It is not that.
    """
    members: dict[str, tuple[str, ...]] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        member, _, url = part.strip().partition("=")
        try:
            urls = parse_urls(url)
        except ValueError as reason:
            raise ConfigError(f"error setting up initial cluster: {reason}") from None
        if not member or not urls:
            raise ConfigError("error setting up initial cluster: --initial-cluster is NAME=URL,...")
        check_member_name(member, "error setting up initial cluster: a name in --initial-cluster")
        members[member] = tuple(sorted((*members.get(member, ()), *urls)))
    return members


def _check_own(
    members: Mapping[str, tuple[str, ...]], name: str, own_urls: tuple[str, ...]
) -> None:
    if name not in members:
        raise ConfigError(
            f'couldn\'t find local name "{name}" in the initial cluster configuration'
        )
    listed, advertised = set(members[name]), set(own_urls)
    if listed - advertised:
        raise ConfigError(
            f"--initial-cluster has {_shown({name: tuple(sorted(listed - advertised))})} but "
            f"missing from --initial-advertise-peer-urls={','.join(own_urls)}"
        )
    if advertised - listed:
        raise ConfigError(
            f"--initial-advertise-peer-urls has {','.join(sorted(advertised - listed))} but "
            f"missing from --initial-cluster={_shown(members)}"
        )


def check_duplicates(members: Mapping[str, tuple[str, ...]], what: str) -> None:
    """Refuse members of whom two have one URL.

    Args:
        members: Peer URLs by name.
        what: What they are, for the text.

    Raises:
        ConfigError: There are such.
    """
    urls = [url for urls in members.values() for url in urls]
    if len(set(urls)) < len(urls):
        raise ConfigError(f"{what} {_shown(members)} has duplicate url")


def _shown(members: Mapping[str, tuple[str, ...]]) -> str:
    return ",".join(f"{name}={url}" for name, urls in sorted(members.items()) for url in urls)
