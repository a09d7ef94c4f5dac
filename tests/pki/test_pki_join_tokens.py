"""The tokens of an authority: good once, for a while, and for whoever has the whole of one."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kvsecure.model.join_token import JoinToken
from kvsecure.model.secret import Secret
from kvsecure.pki.authority import Authority, create_authority
from kvsecure.pki.join_tokens import JoinTokens, TokenRejected, TooManyTokens, ttl_of

_ADDRESS = "10.0.0.1:2379"
_WRONG = Secret(b"w" * 32)


class _World:
    """An authority with tokens, and a clock that is turned by hand."""

    def __init__(self, directory: Path) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.authority = create_authority(directory / "authority", "prod", self._clock)
        self.tokens = self.again()

    def _clock(self) -> datetime:
        return self.now

    def again(self) -> JoinTokens:
        """Return the tokens as another process, or this one after a restart, has them."""
        return JoinTokens(self.authority.directory, self._clock)

    def make(self, ttl: timedelta = timedelta(hours=1)) -> JoinToken:
        """Make a token."""
        return self.tokens.make(self.authority, _ADDRESS, ttl)[0]

    def files(self) -> bytes:
        """Return everything that is stored of tokens."""
        found = sorted((self.authority.directory / "tokens").iterdir())
        return b"".join(path.read_bytes() for path in found)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[_World]:
    """A new authority."""
    return _World(tmp_path)


def test_token_says_where_and_whom_to_trust(world: _World) -> None:
    """A token has the address that was given, and the fingerprint of its authority."""
    token = world.make()

    assert token.address == _ADDRESS
    assert token.fingerprint == Authority.open(world.authority.directory).fingerprint


def test_token_is_used_once(world: _World) -> None:
    """A token may be used, and then never again, also after a restart."""
    token = world.make()
    world.tokens.check(token.token_id, token.secret)

    world.tokens.use(token.token_id, token.secret)

    for tokens in (world.tokens, world.again()):
        with pytest.raises(TokenRejected, match="been used"):
            tokens.check(token.token_id, token.secret)
        with pytest.raises(TokenRejected, match="been used"):
            tokens.use(token.token_id, token.secret)


def test_token_is_used_by_one_of_many(world: _World) -> None:
    """Of all that use one token at once, one does."""
    token, used = world.make(), []
    gate = threading.Barrier(8)

    def use(number: int) -> None:
        tokens = world.again()
        gate.wait()
        try:
            tokens.use(token.token_id, token.secret)
        except TokenRejected:
            return
        used.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(used) == 1


def test_token_ends(world: _World) -> None:
    """A token is good to its last second and not in the next one."""
    token = world.make(timedelta(minutes=5))
    world.now += timedelta(seconds=299)
    world.tokens.check(token.token_id, token.secret)

    world.now += timedelta(seconds=1)

    with pytest.raises(TokenRejected, match="it ended at 2030-01-01 00:05:00Z"):
        world.tokens.use(token.token_id, token.secret)


def test_wrong_secret_and_unknown_token_are_told_alike(world: _World) -> None:
    """Nobody learns from a refusal whether there is a token, used or not."""
    token, used = world.make(), world.make()
    world.tokens.use(used.token_id, used.secret)
    texts = set()

    for token_id in (token.token_id, used.token_id, "0" * 16, "../ca", "", "A" * 16):
        with pytest.raises(TokenRejected) as raised:
            world.tokens.check(token_id, _WRONG)
        texts.add(str(raised.value))

    assert len(texts) == 1


def test_wrong_secrets_end_a_token(world: _World) -> None:
    """After eight wrong secrets a token is good for nobody, also after a restart."""
    token = world.make()
    for _ in range(7):
        with pytest.raises(TokenRejected):
            world.tokens.check(token.token_id, _WRONG)
    world.tokens.check(token.token_id, token.secret)

    with pytest.raises(TokenRejected):
        world.tokens.check(token.token_id, _WRONG)

    for tokens in (world.tokens, world.again()):
        with pytest.raises(TokenRejected, match="too many wrong secrets"):
            tokens.use(token.token_id, token.secret)


def test_disk_has_no_secret(world: _World) -> None:
    """What is stored has neither the secret of a token nor its text, and nobody else reads it."""
    token = world.make()

    stored = world.files()

    secret = token.secret.reveal()
    for form in (secret, secret.hex().encode(), token.text().reveal()[-60:]):
        assert form not in stored
    modes = {path.stat().st_mode & 0o777 for path in world.authority.directory.glob("tokens/*")}
    assert modes == {0o600}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"format":2,"secret_sha256":"a","expires":"2031-01-01T00:00:00+00:00"}',
        b'{"format":1,"secret_sha256":1,"expires":"2031-01-01T00:00:00+00:00"}',
        b'{"format":1,"secret_sha256":"a","expires":"2031-01-01T00:00:00"}',
        b'{"format":1,"secret_sha256":"a","expires":1}',
    ],
)
def test_damaged_token_is_good_for_nobody(world: _World, content: bytes) -> None:
    """A file that is no record of a token is a token that there is not."""
    token = world.make()
    (world.authority.directory / "tokens" / f"{token.token_id}.json").write_bytes(content)

    with pytest.raises(TokenRejected, match="not known here"):
        world.tokens.use(token.token_id, token.secret)


def test_tokens_that_are_open_are_bounded(world: _World) -> None:
    """There are 64 tokens at most; the day after they ended there is room again."""
    for _ in range(64):
        world.make()

    with pytest.raises(TooManyTokens):
        world.make()

    world.now += timedelta(hours=26)
    world.make()
    assert len(list(world.authority.directory.glob("tokens/*"))) == 1


@pytest.mark.parametrize("seconds", [0, -1, 604_801, 1 << 31])
def test_lifetime_has_bounds(seconds: int) -> None:
    """A token is good for something, and for a week at most."""
    assert ttl_of(604_800) == timedelta(days=7)

    with pytest.raises(ValueError, match="at most 7 days"):
        ttl_of(seconds)
