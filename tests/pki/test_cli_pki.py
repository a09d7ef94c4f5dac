"""The commands of `kvsecure pki`: files, texts and exit codes."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.x509 import load_pem_x509_certificate

from kvsecure.cli.pki import pki
from kvsecure.pki.authority import create_authority
from kvsecure.pki.revocation import lists_of
from kvsecure.pki.trust import ServerTls, server_context

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command in an empty directory with a home of its own."""
    monkeypatch.setenv("KVSECURE_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(pki, arguments)

    return command


@pytest.fixture
def made(run: Run, tmp_path: Path) -> Path:
    """Return the directory of an authority that `init` made in the default place."""
    result = run("init", "--cluster", "c1")
    assert result.exit_code == 0, result.stderr
    return tmp_path / "home" / "pki"


def _lines(result: Result) -> dict[str, str]:
    """Return what a command printed, by the first word of each line."""
    return dict(line.split(maxsplit=1) for line in result.stdout.splitlines())


def test_init_makes_an_authority_in_the_default_place(run: Run, tmp_path: Path) -> None:
    """`init` says what it wrote, and that is where it is."""
    result = run("init", "--cluster", "c1")

    lines = _lines(result)
    assert result.exit_code == 0
    assert lines["authority"] == "c1.kvsecure"
    assert Path(lines["trust"]) == tmp_path / "home" / "pki" / "ca.crt"
    assert stat.S_IMODE((tmp_path / "home" / "pki" / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_init_uses_the_home_directory_without_the_variable(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without KVSECURE_HOME the place is ~/.kvsecure/pki."""
    monkeypatch.delenv("KVSECURE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert run("init", "--cluster", "c1").exit_code == 0

    assert (tmp_path / ".kvsecure" / "pki" / "ca.crt").is_file()


def test_init_refuses_to_overwrite(run: Run, made: Path) -> None:
    """A second `init` is one line on stderr and exit code 1."""
    before = (made / "ca.key").read_bytes()

    result = run("init", "--cluster", "c2")

    assert result.exit_code == 1
    assert "never overwritten" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (made / "ca.key").read_bytes() == before


def test_issue_writes_what_a_server_needs(run: Run, made: Path) -> None:
    """Certificate, key and ca.crt land here, and a server context takes them as they are."""
    result = run("issue", "server", "db1", "--host", "db1.internal", "--host", "10.0.0.5")

    here = Path()
    assert result.exit_code == 0
    assert _lines(result)["names"] == "dns:db1.internal, ip:10.0.0.5"
    assert {path.name for path in here.iterdir()} == {"db1.crt", "db1.key", "ca.crt"}
    assert stat.S_IMODE((here / "db1.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((here / "db1.crt").stat().st_mode) == 0o644
    assert (here / "ca.crt").read_bytes() == (made / "ca.crt").read_bytes()
    server_context(
        ServerTls(
            cert_file=here / "db1.crt", key_file=here / "db1.key", trusted_ca_file=here / "ca.crt"
        )
    )


def test_issue_prints_identity_and_expiry_and_no_key(run: Run, made: Path, tmp_path: Path) -> None:
    """What was issued is said; the key is only ever in its file."""
    out = tmp_path / "out"

    result = run("issue", "client", "alice", "--tenant", "acme", "--ttl", "24h", "--out", str(out))

    lines = _lines(result)
    assert result.exit_code == 0
    assert lines["identity"] == (
        "spiffe://acme.c1.kvsecure/user/alice (user alice, tenant acme, cluster c1)"
    )
    certificate = load_pem_x509_certificate((out / "alice.crt").read_bytes())
    assert lines["expires"] == f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S}Z"
    assert "PRIVATE" not in result.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_issue_refuses_to_overwrite_without_force(run: Run, made: Path) -> None:
    """Neither the certificate nor the key is replaced unless told so, and nothing is issued."""
    run("issue", "client", "alice")
    before = Path("alice.key").read_bytes()

    refused = run("issue", "client", "alice")
    Path("alice.crt").unlink()
    refused_by_key = run("issue", "client", "alice")
    listed = run("list").stdout.splitlines()
    forced = run("issue", "client", "alice", "--force")

    assert (refused.exit_code, refused_by_key.exit_code, forced.exit_code) == (1, 1, 0)
    assert "--force" in refused.stderr
    assert len(listed) == 1
    assert Path("alice.key").read_bytes() != before


def test_issue_keeps_a_ca_file_that_is_there(run: Run, made: Path, tmp_path: Path) -> None:
    """A bundle that holds the authority is left alone; one that does not is warned about."""
    other = create_authority(tmp_path / "other", "c2").trust_pem
    ours = (made / "ca.crt").read_bytes()

    Path("ca.crt").write_bytes(other + ours)
    fine = run("issue", "client", "alice")
    Path("ca.crt").write_bytes(other)
    warned = run("issue", "client", "bob")

    assert (fine.exit_code, fine.stderr) == (0, "")
    assert warned.exit_code == 0
    assert "does not hold this authority" in warned.stderr
    assert Path("ca.crt").read_bytes() == other


@pytest.mark.parametrize(
    "arguments",
    [
        ("client", "alice", "--host", "h1"),
        ("client", "alice", "--tenant", "A"),
        ("server", "db1", "--tenant", "acme"),
        ("server", "db1", "--host", "*.internal"),
        ("server", "db1", "--ttl", "398d"),
        ("peer", "m1", "--ttl", "4000d"),
        ("peer", "m1", "--dir", "nowhere"),
    ],
)
def test_issue_refuses_what_profiles_do_not_give(
    run: Run, made: Path, arguments: tuple[str, ...]
) -> None:
    """A refusal is one line on stderr, exit code 1, and no file."""
    result = run("issue", *arguments)

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("issue",),
        ("issue", "authority", "ca2"),
        ("issue", "client", "../alice"),
        ("issue", "client", ".."),
        ("issue", "client", "ca"),
        ("issue", "client", "alice", "--ttl", "soon"),
        ("issue", "client", "alice", "--key-usage", "any"),
        ("init",),
        ("show",),
        ("revoke",),
    ],
)
def test_wrong_usage_is_exit_code_2(run: Run, made: Path, arguments: tuple[str, ...]) -> None:
    """What the command does not understand is wrong usage, and nothing happens."""
    result = run(*arguments)

    assert result.exit_code == 2
    assert list(Path().iterdir()) == []


def test_show_tells_everything_about_a_good_certificate(run: Run, made: Path) -> None:
    """`show` prints identity, usages, names, validity, serial and fingerprint."""
    run("issue", "client", "alice", "--tenant", "acme")
    certificate = load_pem_x509_certificate(Path("alice.crt").read_bytes())

    result = run("show", "alice.crt")

    assert (result.exit_code, result.stderr) == (0, "")
    for text in (
        "spiffe://acme.c1.kvsecure/user/alice (user alice, tenant acme, cluster c1)",
        "digital_signature, client_auth",
        "uri:spiffe://acme.c1.kvsecure/user/alice",
        f"{certificate.serial_number:040x}",
        f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S}Z",
    ):
        assert text in result.stdout


def test_show_exits_1_when_a_server_would_refuse(
    run: Run, made: Path, tmp_path: Path, forge: Callable[..., bytes]
) -> None:
    """A certificate without an identity is shown, with the reason on stderr."""
    Path("evil.crt").write_bytes(forge(common_names=["root"]))

    result = run("show", "evil.crt")

    assert result.exit_code == 1
    assert "a server would refuse it: it has no URI" in result.stderr
    assert "CN=root" in result.stdout


def test_show_does_not_let_a_certificate_drive_the_terminal(
    run: Run, made: Path, forge: Callable[..., bytes]
) -> None:
    """Control characters from a certificate are shown, not sent."""
    Path("evil.crt").write_bytes(forge(common_names=["\x1b[2J\nroot\u202e"]))

    result = run("show", "evil.crt")

    assert "\x1b" not in result.output
    assert "\u202e" not in result.output
    assert "\\x1b" in result.stdout


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\n"])
def test_show_says_when_there_is_no_certificate(run: Run, made: Path, content: bytes) -> None:
    """Anything else than a certificate is one clear line."""
    Path("x.crt").write_bytes(content)

    result = run("show", "x.crt")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: x.crt: ")
    assert len(result.stderr.splitlines()) == 1
    assert run("show", "missing.crt").exit_code == 1


def test_show_never_prints_a_key(run: Run, made: Path) -> None:
    """Given the key by mistake, `show` says that it is no certificate and nothing of the key."""
    run("issue", "client", "alice")

    result = run("show", "alice.key")

    assert result.exit_code == 1
    assert "PRIVATE" not in result.output


def test_list_shows_all_that_was_issued(run: Run, made: Path) -> None:
    """`list` has one line for each certificate, and says so when the index is damaged."""
    run("issue", "client", "alice", "--tenant", "acme")
    run("issue", "server", "db1")

    fine = run("list")
    with (made / "issued.jsonl").open("ab") as index:
        index.write(b"torn")
    damaged = run("list")

    lines = fine.stdout.splitlines()
    assert fine.exit_code == 0
    assert len(lines) == 2
    assert lines[0].endswith("spiffe://acme.c1.kvsecure/user/alice")
    assert lines[1].split()[1:3] == ["server", "valid"]
    assert damaged.stdout == fine.stdout
    assert damaged.exit_code == 1
    assert "lines: 3" in damaged.stderr


def test_pki_works_as_a_process(tmp_path: Path) -> None:
    """As a process of its own it keeps to its exit codes and streams."""
    driver = "from kvsecure.cli.pki import pki; pki()"
    tree = Path(__file__).resolve().parent.parent.parent
    environment = {**os.environ, "KVSECURE_HOME": str(tmp_path), "PYTHONPATH": str(tree)}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", driver, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    outcomes = [
        command("init", "--cluster", "c1"),
        command("issue", "client", "alice"),
        command("show", "alice.crt"),
        command("list"),
        command("init", "--cluster", "c1"),
        command("issue", "nobody", "alice"),
    ]

    assert [outcome.returncode for outcome in outcomes] == [0, 0, 0, 0, 1, 2]
    assert [outcome.stderr for outcome in outcomes[:4]] == [""] * 4
    assert "Traceback" not in "".join(outcome.stderr for outcome in outcomes)


def test_revoke_and_crl_make_a_list_for_servers(run: Run, made: Path, tmp_path: Path) -> None:
    """What `revoke` took back is in the file that `crl` writes, and marked in `list`."""
    run("issue", "client", "alice")
    run("issue", "client", "bob")

    revoked = run("revoke", "alice")
    again = run("revoke", "alice")
    written = run("crl", "--out", "clients.crl", "--ttl", "2d")

    assert (revoked.exit_code, again.exit_code, written.exit_code) == (0, 0, 0)
    assert revoked.stdout.split()[2] == "spiffe://default.c1.kvsecure/user/alice"
    assert again.stdout == "revoked     already\n"
    assert _lines(written)["revoked"] == "1"
    serial = int(revoked.stdout.split()[1], 16)
    (found,) = lists_of((tmp_path / "here" / "clients.crl").read_bytes())
    assert serial in found
    assert [line.split()[2] for line in run("list").stdout.splitlines()] == ["revoked", "valid"]


def test_revoke_and_crl_say_what_is_wrong(run: Run, made: Path) -> None:
    """A name that nobody has, and a lifetime that is none, are refused in one line."""
    unknown = run("revoke", "nobody")
    endless = run("crl", "--out", "clients.crl", "--ttl", "900d")
    wrong = run("crl", "--out", "clients.crl", "--ttl", "soon")

    assert (unknown.exit_code, endless.exit_code, wrong.exit_code) == (1, 1, 2)
    assert "no certificate of nobody" in unknown.stderr
    assert "at most 90d" in endless.stderr
