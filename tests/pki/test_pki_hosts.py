"""Hosts: what is one, and which of them a rule lets through."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.pki.hosts import (
    Admission,
    DnsRule,
    HostError,
    IpRule,
    dns_rule,
    ip_rule,
    parse_host,
)

_networks = st.one_of(
    st.ip_addresses(v=4).flatmap(
        lambda address: st.integers(0, 32).map(
            lambda bits: ip_network(f"{address}/{bits}", strict=False)
        )
    ),
    st.sampled_from([ip_network("::/0"), ip_network("fd00::/8"), ip_network("::1/128")]),
)
_ip_rules = st.one_of(
    st.sampled_from([IpRule(admission=Admission.ANY), IpRule(admission=Admission.NONE)]),
    st.lists(_networks, max_size=3).map(
        lambda listed: IpRule(admission=Admission.LISTED, listed=tuple(listed))
    ),
)
_dns_names = st.lists(st.sampled_from(["a", "b", "db"]), min_size=1, max_size=4).map(".".join)
_dns_rules = st.one_of(
    st.sampled_from([DnsRule(admission=Admission.ANY), DnsRule(admission=Admission.NONE)]),
    st.lists(st.tuples(st.sampled_from(["", "."]), _dns_names).map("".join), max_size=3).map(
        lambda listed: DnsRule(admission=Admission.LISTED, listed=tuple(listed))
    ),
)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", "localhost"),
        ("DB1.Internal", "db1.internal"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("10.0.0.5", ip_address("10.0.0.5")),
        ("::1", ip_address("::1")),
        ("2001:DB8:0::5", ip_address("2001:db8::5")),
    ],
)
def test_parse_host_takes_names_and_addresses(text: str, host: object) -> None:
    """Names come back in lower case and addresses as such."""
    assert host == parse_host(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "*",
        "*.internal",
        "db*.internal",
        "db.",
        ".db",
        "a..b",
        "-a",
        "a-",
        "a_b",
        "a b",
        "a/b",
        "b\u00fccher.example",
        "\u0130.example",
        "localhost\n",
        "db1:2379",
        "[::1]",
        "fe80::1%eth0",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "127.1",
        "10.0.0.0/8",
        "https://db1",
        "a" * 64,
        ".".join(["a" * 63] * 4),
    ],
)
def test_parse_host_refuses_everything_else(text: str) -> None:
    """Wildcards, ports, zones, half addresses and foreign letters are no hosts (RFC 1123, 2.1)."""
    with pytest.raises(HostError):
        parse_host(text)


@given(text=st.text())
def test_parse_host_is_total(text: str) -> None:
    """Any text is a host or a HostError, and a host stands for itself."""
    try:
        host = parse_host(text)
    except HostError:
        return

    assert host == parse_host(str(host))


def test_dns_rule_admits_what_is_listed() -> None:
    """A suffix stands for names below it and a name for itself."""
    rule = dns_rule(["db.internal", ".svc.local"])

    assert rule.admits("db.internal")
    assert rule.admits("m1.svc.local")
    assert not rule.admits("svc.local")
    assert not rule.admits("x.db.internal")
    assert not rule.admits("evilsvc.local")


def test_ip_rule_admits_what_is_listed() -> None:
    """An address of one version is in no network of the other."""
    rule = ip_rule(["10.0.0.0/8", "::1/128"])

    assert rule.admits(ip_address("10.1.2.3"))
    assert rule.admits(ip_address("::1"))
    assert not rule.admits(ip_address("11.0.0.1"))
    assert not rule.admits(ip_address("::a00:1"))


@pytest.mark.parametrize("value", ["some", "", None, {}, ["*.a"], [".*"], ["."], [["a"]], [1]])
def test_dns_rule_refuses_what_is_no_rule(value: object) -> None:
    """A rule is `any`, `none` or a list of names."""
    with pytest.raises(HostError):
        dns_rule(value)


@pytest.mark.parametrize("value", ["all", None, ["10.0.0.1/8"], ["x"], [["10.0.0.0/8"]], [1]])
def test_ip_rule_refuses_what_is_no_rule(value: object) -> None:
    """A rule is `any`, `none` or a list of networks without host bits."""
    with pytest.raises(HostError):
        ip_rule(value)


@given(own=_ip_rules, wider=_ip_rules, address=st.ip_addresses())
def test_ip_rule_within_another_admits_nothing_more(
    own: IpRule, wider: IpRule, address: object
) -> None:
    """What a narrower rule lets through, the wider one does too."""
    addresses = [address, *(network.network_address for network in own.listed)]

    if own.is_within(wider):
        assert all(wider.admits(one) for one in addresses if own.admits(one))


@given(own=_dns_rules, wider=_dns_rules, name=_dns_names)
def test_dns_rule_within_another_admits_nothing_more(
    own: DnsRule, wider: DnsRule, name: str
) -> None:
    """What a narrower rule lets through, the wider one does too."""
    names = [name, *(entry.removeprefix(".") for entry in own.listed)]
    names += [f"x{entry}" for entry in own.listed if entry.startswith(".")]

    if own.is_within(wider):
        assert all(wider.admits(one) for one in names if own.admits(one))


@given(rule=_dns_rules)
def test_dns_rule_is_within_itself_and_any(rule: DnsRule) -> None:
    """A profile that was not touched is not wider than itself."""
    assert rule.is_within(rule)
    assert rule.is_within(DnsRule(admission=Admission.ANY))


@given(rule=_ip_rules)
def test_ip_rule_is_within_itself_and_any(rule: IpRule) -> None:
    """A profile that was not touched is not wider than itself."""
    assert rule.is_within(rule)
    assert rule.is_within(IpRule(admission=Admission.ANY))
