"""Where members listen for each other, and how they know each other."""

import pytest
from server.command_line import configured, refused

TLS = (
    "--peer-cert-file=peer.crt",
    "--peer-key-file=peer.key",
    "--peer-trusted-ca-file=peer-ca.crt",
)
OTHER = "b=https://10.0.0.2:2380"


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--initial-advertise-peer-urls=https://10.0.0.1:2380",),
        ("--initial-cluster=default=http://localhost:2380",),
        ("--initial-cluster-state=existing",),
    ],
)
def test_member_that_is_told_nothing_of_peers_listens_on_nothing(flags: tuple[str, ...]) -> None:
    """A cluster of one needs no certificate for members, and opens no port for them."""
    config = configured(*flags)

    assert config.peers.listen == ()
    assert config.peers.tls is None
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("flags", "url"),
    [
        (TLS, "https://localhost:2380"),
        ((*TLS, "--listen-peer-urls=https://0.0.0.0:1"), "https://0.0.0.0:1"),
        (("--listen-peer-urls=http://[::1]:1",), "http://[::1]:1"),
        (
            ("--initial-cluster=default=http://localhost:2380,b=http://localhost:2381",),
            "http://localhost:2380",
        ),
        (
            (*TLS, f"--initial-cluster=default=https://localhost:2380,{OTHER}"),
            "https://localhost:2380",
        ),
    ],
)
def test_member_that_is_told_of_peers_listens(flags: tuple[str, ...], url: str) -> None:
    """Where it is told to, or else where etcd would; https where there is a certificate."""
    assert configured(*flags).peers.listen_urls == (url,)


def test_certificate_makes_the_default_advertised_url_secure() -> None:
    """What others dial is what is listened on."""
    config = configured(*TLS)

    assert config.peers.advertise_urls == ("https://localhost:2380",)
    assert config.cluster.members == (("default", ("https://localhost:2380",)),)
    assert config.warnings == ()


def test_plaintext_between_members_is_warned_about() -> None:
    """On loopback it is allowed, and every process of the machine is then believed."""
    (warning,) = configured("--listen-peer-urls=http://127.0.0.1:1").warnings

    assert "can speak as any member" in warning


@pytest.mark.parametrize("url", ["http://0.0.0.0:1", "http://[::]:1", "http://10.0.0.1:1"])
@pytest.mark.parametrize("insisting", [(), ("--allow-insecure-listeners",)])
def test_plaintext_between_machines_is_never_spoken(url: str, insisting: tuple[str, ...]) -> None:
    """Nobody can insist on it: whoever reaches that port could be any member."""
    text = refused(f"--listen-peer-urls={url}", *insisting)

    assert text.startswith(f"{url} would be readable on the network, and whoever reaches it could")
    assert text.endswith("or leave --listen-peer-urls out: there is no other member")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (TLS[:1], "--peer-cert-file and --peer-key-file must be given together"),
        (TLS[1:2], "--peer-cert-file and --peer-key-file must be given together"),
        (TLS[:2], "--peer-cert-file needs --peer-trusted-ca-file: who may issue members'?"),
        (
            TLS[2:],
            "--peer-trusted-ca-file is of no use without --peer-cert-file and --peer-key-file",
        ),
        (
            ("--peer-crl-file=x",),
            "--peer-crl-file is of no use without --peer-cert-file and --peer-key-file",
        ),
        (
            ("--peer-client-cert-auth",),
            (
                "--peer-client-cert-auth needs --peer-cert-file, --peer-key-file and "
                "--peer-trusted-ca-file"
            ),
        ),
        (
            ("--listen-peer-urls=https://127.0.0.1:1",),
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
        ),
        (
            (*TLS, "--listen-peer-urls=http://127.0.0.1:1"),
            (
                "members that have certificates do not listen in plaintext: http://127.0.0.1:1 in "
                "--listen-peer-urls must be https"
            ),
        ),
        (
            (*TLS, "--initial-cluster=default=https://localhost:2380,b=http://localhost:2381"),
            (
                "members that have certificates do not dial in plaintext: http://localhost:2381 "
                "must be https"
            ),
        ),
        (
            (f"--initial-cluster=default=http://localhost:2380,{OTHER}",),
            (
                "https://10.0.0.2:2380 needs --peer-cert-file, --peer-key-file and "
                "--peer-trusted-ca-file"
            ),
        ),
        (
            ("--initial-cluster=default=http://localhost:2380,b=http://10.0.0.2:2380",),
            (
                "http://10.0.0.2:2380 is on another machine, and whoever reaches it could speak "
                "as any member: use https with --peer-cert-file, --peer-key-file and "
                "--peer-trusted-ca-file"
            ),
        ),
        (
            ("--listen-peer-urls=unix:///run/peer.sock",),
            "members listen on http or https: unix:///run/peer.sock",
        ),
        (
            ("--initial-cluster=default=http://localhost:2380,b=unix://b.sock",),
            "members are reached by http or https: unix://b.sock",
        ),
        (("--listen-peer-urls=",), "--listen-peer-urls must name at least one URL"),
        (
            ("--listen-peer-urls=http://localhost:2379",),
            "two listeners cannot share one address: http://localhost:2379",
        ),
        (
            (*TLS, "--peer-cert-allowed-cn=a"),
            (
                "--peer-cert-allowed-cn: members are matched by the URI in their certificates, "
                "never by an allowed common name"
            ),
        ),
    ],
)
def test_links_that_cannot_or_must_not_be_are_refused(flags: tuple[str, ...], text: str) -> None:
    """At the start, with the flag that would mend it."""
    assert refused(*flags) == text


@pytest.mark.parametrize("switch", ["--peer-client-cert-auth", "--peer-client-cert-auth=false"])
def test_members_that_have_certificates_always_show_them(switch: str) -> None:
    """The switch of etcd changes nothing, and asks for nothing that is not so."""
    assert configured(*TLS, switch).warnings == ()


def test_pace_is_the_flags() -> None:
    """In milliseconds, as etcd has them."""
    peers = configured("--heartbeat-interval=50", "--election-timeout=300").peers

    assert (peers.heartbeat_ms, peers.election_ms) == (50, 300)


def test_authority_needs_members_with_certificates() -> None:
    """A member that has the authority has a certificate to be known by itself."""
    config = configured(*TLS, "--authority-dir=/var/lib/authority")

    assert str(config.peers.authority_dir) == "/var/lib/authority"
    assert configured(*TLS).peers.authority_dir is None
    assert "--authority-dir" in refused("--authority-dir=/var/lib/authority")
