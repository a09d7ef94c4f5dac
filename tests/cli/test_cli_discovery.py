"""Endpoints by SRV records: what is dialled, what is left out, and what is an error."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from support.names import NameServer
from support.servers import ROOT_PASSWORD, KvsecureServer

from kvsecure.cli.discovery import Records, endpoints_of
from kvsecure.cli.failures import CommandFailure, ExitStatus
from kvsecure.pki.files import write_private

__all__: list[str] = []

Run = Callable[..., Result]

_SECURE = "_etcd-client-ssl._tcp.example.test"
_PLAIN = "_etcd-client._tcp.example.test"


def _found(server: NameServer, records: Records, *, has_authority: bool = False) -> tuple[str, ...]:
    return endpoints_of(
        records, has_authority=has_authority, answer_s_max=5.0, resolver=server.resolver()
    )


def test_endpoints_are_the_records_of_the_domain() -> None:
    """They come by priority; those without TLS only if they are asked for."""
    with NameServer() as server:
        server.say(_SECURE, "SRV", "2 0 2379 m2.example.test.", "1 0 2379 m1.example.test.")
        server.say(_PLAIN, "SRV", "0 0 2379 m3.example.test.")

        secure = _found(server, Records(domain="example.test"))
        both = _found(server, Records(domain="Example.Test.", with_plaintext=True))

    assert secure == ("m1.example.test:2379", "m2.example.test:2379")
    assert both == (*secure, "http://m3.example.test:2379")


def test_endpoints_of_a_named_cluster_are_its_own() -> None:
    """--discovery-srv-name stands behind a dash, as in etcdctl."""
    with NameServer() as server:
        server.say("_etcd-client-ssl-blue._tcp.example.test", "SRV", "0 0 1 blue.example.test.")

        found = _found(server, Records(domain="example.test", service_name="blue"))

    assert found == ("blue.example.test:1",)


def test_endpoint_of_another_domain_needs_an_authority() -> None:
    """Public authorities certify everybody, so DNS alone must not lead a password elsewhere."""
    with NameServer() as server:
        server.say(_SECURE, "SRV", "0 0 2379 m1.example.test.", "0 0 2379 evil-example.test.")
        records = Records(domain="example.test")

        assert _found(server, records) == ("m1.example.test:2379",)
        assert len(_found(server, records, has_authority=True)) == 2


def test_domain_without_endpoints_is_an_error() -> None:
    """Nothing is dialled by default instead: no records, or none that may be used."""
    records = Records(domain="example.test")
    with NameServer() as server:
        with pytest.raises(CommandFailure, match="there is no such record") as none:
            _found(server, records)
        server.say(_PLAIN, "SRV", "0 0 2379 m3.example.test.")
        with pytest.raises(CommandFailure, match="see above"):
            _found(server, records)

    assert none.value.exit_code == ExitStatus.NO_ANSWER


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-d", "example.test", "--endpoint", "a:1"], "both say where the members are"),
        (["--insecure-discovery"], "of no use without"),
        (["--discovery-srv-name", "blue"], "of no use without"),
    ],
)
def test_discovery_is_one_way_of_two(run: Run, arguments: list[str], text: str) -> None:
    """Endpoints are given or found, and what would be forgotten is refused."""
    result = run(*arguments, "get", "k")

    assert result.exit_code == ExitStatus.USAGE
    assert text in result.output


def test_command_goes_where_the_records_say(tmp_path: Path, environment: dict[str, str]) -> None:
    """A real command with a domain, asking real DNS, logs in at the member that it names."""
    if not NameServer.programs_can_be_led():
        pytest.skip("a resolv.conf of one's own takes root, unshare and mount")
    password = tmp_path / "password"
    write_private(password, ROOT_PASSWORD.encode())
    with NameServer.for_programs() as names, KvsecureServer(tmp_path / "server") as server:
        names.say(_SECURE, "SRV", f"0 0 {server.port} localhost.")

        done = subprocess.run(
            [
                *names.prefix(tmp_path),
                *(sys.executable, "-m", "kvsecure", "--discovery-srv", "example.test"),
                *("--cacert", str(server.authority.certificate), "--user", "root"),
                *("--password-file", str(password), "put", "k", "v"),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert (done.returncode, done.stdout, done.stderr) == (0, "OK\n", "")
