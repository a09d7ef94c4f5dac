"""What DNS says is taken in order, in time, and never for more than a name and a port."""

import pytest
from support.names import NameServer

from kvsecure.lookup import LookupFailed, Place, addresses_of, places_of

_SERVICE = "_etcd-server-ssl._tcp.example.test"


def _places(server: NameServer, *, places_max: int = 64, answer_s_max: float = 5.0) -> list[Place]:
    found = places_of(
        "etcd-server-ssl",
        "example.test",
        places_max=places_max,
        resolver=server.resolver(),
        answer_s_max=answer_s_max,
    )
    return list(found)


def test_places_come_by_priority_and_weight() -> None:
    """The lowest priority comes first, then the heaviest weight; a name is in lower case."""
    with NameServer() as server:
        server.say(
            _SERVICE,
            "SRV",
            "20 0 2380 c.example.test.",
            "10 1 2380 B.Example.Test.",
            "10 9 2381 a.example.test.",
        )

        found = _places(server)

    assert found == [
        Place("a.example.test", 2381),
        Place("b.example.test", 2380),
        Place("c.example.test", 2380),
    ]


def test_places_beyond_a_datagram_come_whole() -> None:
    """What does not fit into a datagram is asked for again over TCP."""
    names = [f"member-number-{number:02}.example.test" for number in range(64)]
    with NameServer() as server:
        server.say(_SERVICE, "SRV", *(f"0 0 2380 {name}." for name in names))

        found = _places(server)

        assert server.asked[_SERVICE] == 2
    assert [each.host for each in found] == names


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([], "there is no such record"),
        (["0 0 0 ."], "there is no such service"),
        ([f"0 0 {port} a.example.test." for port in range(1, 5)], "4 records, of 3 at most"),
        (["0 0 0 a.example.test."], "a record does not name a host and a port"),
        (['0 0 2380 a\\"b.example.test.'], "a record does not name a host and a port"),
        (["0 0 2380 a=http://b.example.test."], "a record does not name a host and a port"),
    ],
)
def test_places_that_cannot_be_are_refused(records: list[str], text: str) -> None:
    """No record, a service that is not there, too many, and what is no host are errors."""
    with NameServer() as server:
        if records:
            server.say(_SERVICE, "SRV", *records)

        with pytest.raises(LookupFailed, match=text):
            _places(server, places_max=3)


def test_lookup_ends_when_nobody_answers() -> None:
    """A server that hears and says nothing costs the time that it is given, and no more."""
    with NameServer() as server:
        server.is_silent = True

        with pytest.raises(LookupFailed, match="no DNS server has answered in time"):
            _places(server, answer_s_max=0.2)


def test_addresses_are_of_both_kinds() -> None:
    """A host has its IPv4 and its IPv6 addresses, and an address is its own."""
    with NameServer() as server:
        server.say("a.example.test", "A", "127.0.0.1")
        server.say("a.example.test", "AAAA", "0:0::1")
        resolver = server.resolver()

        assert addresses_of("a.example.test", resolver=resolver) == {"127.0.0.1", "::1"}
        assert addresses_of("10.0.0.1", resolver=resolver) == {"10.0.0.1"}
        with pytest.raises(LookupFailed, match="there is no such record"):
            addresses_of("b.example.test", resolver=resolver)
