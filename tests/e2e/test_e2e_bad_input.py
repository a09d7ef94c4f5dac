"""Bad input to a running server: each has its documented error, and the server is right afterwards.

Tokens that are expired, foreign or forged are in test_e2e_advisories, certificates of other
clusters and profiles in test_e2e_attacks; damaged logs and data directories in tests/server.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from e2e.world import DENIED, LOGIN_FAILED, PASSWORD, Fortress, refused
from support.certificates import KeyPair
from support.processes import wait_until
from support.rpc import Client, Refusal

from kvsecure.model.errors import Failure
from kvsecure.pki.authority import create_authority
from kvsecure.pki.files import write_private, write_public
from kvsecure.pki.profiles import ProfileName
from kvsecure.proto import auth_pb2, kv_pb2, tenant_pb2

_SLOW_DOWN: Final = Refusal("RESOURCE_EXHAUSTED", Failure.TOO_MANY_REQUESTS.text)
_STATUS: Final = auth_pb2.AuthStatusRequest()


def _is_right(fortress: Fortress) -> bool:
    """Tell whether the server still does what it should: writes, reads, refuses."""
    root = fortress.root()
    fortress.put(root, b"/ops/right", b"yes")
    return fortress.value(root, b"/ops/right") == b"yes" and (
        refused(lambda: fortress.value(fortress.certified("web"), b"/ops/right")) == DENIED
    )


# --- log-ins ------------------------------------------------------------------------------------


def test_a_wrong_password_is_refused_by_one_text(fortress: Fortress) -> None:
    """Whatever is wrong with the password, and however slightly, the text is the same."""
    fortress.user("precise")
    for password in ("", PASSWORD.upper(), PASSWORD + " ", PASSWORD + "\0", "x" * 2_000):
        answer = refused(lambda guess=password: fortress.bearer("precise", guess))
        assert answer == LOGIN_FAILED
    assert fortress.bearer("precise").token
    assert _is_right(fortress)


@pytest.mark.parametrize(
    "name", ["", "nobody", "/", "acme/", "none/web", "a/b/c", "w" * 5_000, "*", "\x00"]
)
def test_an_unknown_user_is_refused_like_a_wrong_password(fortress: Fortress, name: str) -> None:
    """Names that there are not, and that cannot be, get the text of a wrong password."""
    assert refused(lambda: fortress.bearer(name)) == LOGIN_FAILED
    assert _is_right(fortress)


def test_guessing_has_to_wait_and_others_do_not(fortress: Fortress) -> None:
    """After six failures even the right password has to wait, for this name and no other."""
    fortress.user("guessed")
    for _ in range(6):
        assert refused(lambda: fortress.bearer("guessed", "wrong")) == LOGIN_FAILED

    for spelling in ("guessed", "default/guessed"):
        assert refused(lambda name=spelling: fortress.bearer(name)) == _SLOW_DOWN

    assert fortress.bearer("web").token
    wait_until(
        lambda: refused(lambda: fortress.bearer("guessed")) is None,
        deadline_s=10,
        what="the wait to be over",
    )


# --- connections --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """A server that takes nobody without a certificate."""
    with Fortress(
        tmp_path_factory.mktemp("strict"), flags=("--client-cert-mode=required",)
    ) as built:
        built.user("web")
        yield built


def _of_another_authority(directory: Path) -> KeyPair:
    issued = create_authority(directory / "other", "kvsecure").issue(ProfileName.CLIENT, "root")
    pair = KeyPair(certificate=directory / "root.crt", key=directory / "root.key")
    write_public(pair.certificate, issued.certificate_pem + issued.chain_pem)
    write_private(pair.key, issued.private_key)
    return pair


@pytest.mark.parametrize("kind", ["none", "other authority", "plaintext"])
def test_a_connection_without_a_good_certificate_is_none(
    strict: Fortress, tmp_path: Path, kind: str
) -> None:
    """Nobody gets so far as to be answered, and the trail says that somebody tried."""
    before = _failed_handshakes(strict)
    if kind == "plaintext":
        client = Client(strict.server.endpoint, None)
    else:
        pair = _of_another_authority(tmp_path) if kind == "other authority" else None
        client = strict.server.anonymous(pair)

    with client:
        answer = refused(lambda: client.call("auth.AuthStatus", _STATUS))

    assert answer is not None
    assert answer.code == "UNAVAILABLE"
    wait_until(
        lambda: _failed_handshakes(strict) > before, deadline_s=20, what="a record of the attempt"
    )
    assert _is_right(strict)


def _failed_handshakes(fortress: Fortress) -> int:
    return sum(each["stage"] == "handshake-failed" for each in fortress.records())


# --- requests -----------------------------------------------------------------------------------


def _large(size_bytes: int) -> kv_pb2.PutRequest:
    return kv_pb2.PutRequest(key=b"/app/large", value=bytes(size_bytes))


def test_oversized_requests_are_refused_by_etcds_texts(fortress: Fortress) -> None:
    """A request over the limit is too large; a message over the limit of gRPC is not even read."""
    web = fortress.bearer("web")

    assert refused(lambda: web.kv.Put(_large(1_500_000))) is None
    assert refused(lambda: web.kv.Put(_large(1_600_000))) == Refusal(
        "INVALID_ARGUMENT", Failure.REQUEST_TOO_LARGE.text
    )
    nested = kv_pb2.TxnRequest(success=[kv_pb2.RequestOp(request_put=_large(1_600_000))])
    assert refused(lambda: web.kv.Txn(nested)) == Refusal(
        "INVALID_ARGUMENT", Failure.REQUEST_TOO_LARGE.text
    )
    beyond = refused(lambda: web.kv.Put(_large(3_000_000)))
    assert beyond is not None
    assert beyond.code == "RESOURCE_EXHAUSTED"
    assert beyond.text.startswith(Failure.MESSAGE_TOO_LARGE.text)
    assert _is_right(fortress)


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [
        ("/etcdserverpb.KV/Put", b"\x0a\xff", "INTERNAL"),
        ("/etcdserverpb.KV/Txn", b"\x0f", "INTERNAL"),
        ("/etcdserverpb.KV/Nothing", b"", "UNIMPLEMENTED"),
        ("/etcdserverpb.Nothing/Put", b"", "UNIMPLEMENTED"),
        ("/KV/Put", b"", "UNIMPLEMENTED"),
        ("/etcdserverpb.KV/Put/", b"", "UNIMPLEMENTED"),
        ("/etcdserverpb.Cluster/MemberShow", b"", "UNIMPLEMENTED"),
        ("/v3lockpb.Lock/TryLock", b"", "UNIMPLEMENTED"),
    ],
)
def test_what_is_no_request_is_refused(
    fortress: Fortress, path: str, content: bytes, code: str
) -> None:
    """Malformed messages and methods that there are not have gRPC's codes, whoever asks."""
    for client in (fortress.root(), fortress.stranger()):
        call = client.raw(path)
        answer = refused(lambda call=call: call(content))
        assert answer is not None
        assert answer.code == code
    assert _is_right(fortress)


# --- starting -----------------------------------------------------------------------------------


def _start(fortress: Fortress, *flags: str) -> bytes:
    """Start a server that is expected to end by itself with status 1 or 2; return what it said."""
    process = fortress.server.process
    done = subprocess.run(
        [*process._command, *flags],
        env=process._environment,
        capture_output=True,
        check=False,
        timeout=20,
    )
    said = done.stdout + done.stderr
    assert done.returncode == (2 if b"Usage:" in said else 1)
    assert b"internal error" not in said
    assert b"ready to serve" not in said
    return said


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--no-such-flag", b"flag provided but not defined: -no-such-flag"),
        ("--auth-token-ttl=never", b'invalid value "never" for flag -auth-token-ttl'),
        ("--auth-token-ttl=0", b"-auth-token-ttl"),
        ("--tls-min-version=TLS1.0", b"must be one of TLS1.2, TLS1.3"),
        ("surplus", b"'surplus' is not a valid flag"),
        ("--listen-client-urls=http://0.0.0.0:1", b"would be readable on the network"),
        ("--client-identity=cn", b"needs --compat etcd"),
        ("--auto-tls", b"certificates that nobody verifies"),
        ("--cipher-suites=RC4", b"cipher suites cannot be configured"),
        ("--config-file=/none.yaml", b"/none.yaml"),
    ],
)
def test_bad_flags_are_named_and_nothing_is_made(tmp_path: Path, flag: str, says: bytes) -> None:
    """A flag that is wrong is named with the reason, before anything is written."""
    fortress = Fortress(tmp_path / "flags")

    assert says in _start(fortress, flag)

    assert not fortress.data.exists()
    assert not fortress.server.log.exists()


def _spoil_mode(path: Path) -> None:
    path.chmod(0o644)


def _spoil_group(path: Path) -> None:
    path.chmod(0o640)


def _spoil_missing(path: Path) -> None:
    path.unlink()


def _spoil_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _spoil_content(path: Path) -> None:
    write_private(path, b"this is not a key")


_SPOILT: Final[dict[str, tuple[Callable[[Path], None], bytes]]] = {
    "world-readable": (_spoil_mode, b"run `chmod 600 "),
    "group-readable": (_spoil_group, b"run `chmod 600 "),
    "missing": (_spoil_missing, b"No such file or directory"),
    "a directory": (_spoil_directory, b"is not a regular file"),
    "no key": (_spoil_content, b""),
}


@pytest.mark.parametrize("which", ["kek", "certificates/server.key"])
@pytest.mark.parametrize("how", sorted(_SPOILT))
def test_a_key_file_that_is_not_fit_ends_the_start(tmp_path: Path, which: str, how: str) -> None:
    """A key that others can read, that is missing or is none, is named, with what to do."""
    fortress = Fortress(tmp_path / "keys")
    path = fortress.directory / which
    spoil, says = _SPOILT[how]
    content = path.read_bytes()
    spoil(path)

    said = _start(fortress)

    assert str(path).encode() in said
    assert says in said
    assert b"this is not a key" not in said
    assert not (fortress.data / "member.json").exists()
    if how != "world-readable":
        return
    write_private(path, content)
    with fortress:
        assert fortress.put(fortress.root(), b"k", b"v") > 1


def _stored(fortress: Fortress) -> dict[str, bytes]:
    """Return what is in the data directory; the lock only says who held it last."""
    return {name: each for name, each in fortress.leftovers() if name not in {"LOCK", "log"}}


def test_another_key_encryption_key_opens_nothing(tmp_path: Path) -> None:
    """With a key that is sound and another one, the server names both and changes nothing."""
    with Fortress(tmp_path / "kek") as fortress:
        fortress.put(fortress.root(), b"k", b"v")
        fortress.server.stop()
        right = fortress.kek.read_bytes()
        write_private(fortress.kek, b"A" * 43 + b"=")
        before = _stored(fortress)

        said = _start(fortress)
        after = _stored(fortress)
        write_private(fortress.kek, right)
        fortress.server.restart()

        assert b"the keyring was wrapped by key-encryption key" in said
        assert after == before
        assert fortress.value(fortress.root(), b"k") == b"v"


def test_a_data_directory_that_is_not_private_ends_the_start(tmp_path: Path) -> None:
    """What others may enter, or somebody uses, is no data directory; the text says what to do."""
    fortress = Fortress(tmp_path / "open")
    fortress.data.mkdir(mode=0o755)
    assert b"is open to others: run chmod 700" in _start(fortress)
    fortress.data.chmod(0o700)
    (fortress.data / "thesis.txt").write_text("x")
    assert b"neither empty nor a data directory: it holds thesis.txt" in _start(fortress)
    (fortress.data / "thesis.txt").unlink()

    with fortress:
        assert b"is in use by another member process" in _start(fortress)
        assert fortress.put(fortress.root(), b"k", b"v") > 1


# --- checking the trail -------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["data", "kek", "checkpoint", "foreign", "signature"])
def test_a_trail_that_cannot_be_checked_is_told_from_a_broken_one(
    fortress: Fortress, tmp_path: Path, wrong: str
) -> None:
    """Exit status 2 is for what cannot be checked, and the trail is none the worse for it."""
    head = fortress.audit(fortress.root(), "Head")(tenant_pb2.AuditHeadRequest())
    kept = fortress.cli("audit", "head").stdout
    key = tmp_path / "kek"
    write_private(key, b"A" * 43 + b"=")
    (tmp_path / "head.json").write_bytes(
        {
            "checkpoint": b"{}",
            "foreign": kept.replace(head.stream.encode(), b"node/1"),
            "signature": kept.replace(b'"seq"', b'"seq": 1, "was"'),
        }.get(wrong, kept)
    )
    words: dict[str, Any] = {
        "data": ("--data-dir", str(tmp_path)),
        "kek": ("--kek-file", str(key)),
    }

    done = fortress.verify(*words.get(wrong, ("--checkpoint", str(tmp_path / "head.json"))))

    assert done.returncode == 2
    assert done.stderr.startswith(b"Error: ")
    assert b"internal" not in done.stderr
    assert fortress.verify().returncode == 0
