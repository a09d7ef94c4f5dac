"""Tokens: what this cluster minted for a session that goes on, and nothing else."""

import base64
import json
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import example, given
from hypothesis import strategies as st

from kvsecure.crypto.sealing import fresh_key
from kvsecure.crypto.signing import SigningKey
from kvsecure.model.errors import Failure, Refused
from kvsecure.model.ids import ClusterId, TenantId
from kvsecure.model.limits import TOKEN_BYTES_MAX
from kvsecure.security.tokens import Claims, TokenMint

_KEY: Final = SigningKey(fresh_key())
_CLUSTER: Final = ClusterId(0xABC)
# Another member of the cluster.
_NEIGHBOUR: Final = SigningKey(fresh_key())
_KEYS: Final = {key.public.key_id: key.public for key in (_KEY, _NEIGHBOUR)}
_MINT: Final = TokenMint(_KEY, _CLUSTER, 600, _KEYS.get)
_NOW_S: Final = 1_800_000_000
_CLAIMS: Final = Claims(
    tenant=TenantId(16),
    user="web",
    user_id=7,
    tenant_epoch=2,
    user_epoch=3,
    session="5e55",
    expires_s=0,
    certificate=b"",
)


def _refused(token: bytes | str, now_s: int = _NOW_S) -> None:
    content = token.encode() if isinstance(token, str) else token
    with pytest.raises(Refused) as caught:
        _MINT.verify(content, now_s)
    assert caught.value.failure is Failure.INVALID_AUTH_TOKEN


def _payload() -> dict[str, Any]:
    token = _MINT.mint(_CLAIMS, _NOW_S).reveal_text()
    payload: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return payload


def _text(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _signed(
    payload: object,
    *,
    key: SigningKey = _KEY,
    header: dict[str, Any] | None = None,
) -> str:
    """Return a token as anybody with the key could make it, whatever it says."""
    whole = {"typ": "kvs-at+jwt", "kid": key.public.key_id, "alg": "EdDSA", **(header or {})}
    text = f"{_text(json.dumps(whole).encode())}.{_text(json.dumps(payload).encode())}"
    return f"{text}.{_text(key.sign(text.encode()))}"


def _unsigned(header: dict[str, Any], payload: dict[str, Any], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    return ".".join(map(_text, parts))


def test_a_minted_token_says_what_was_minted() -> None:
    """What a token was made of is what it says, until its time is over."""
    token = _MINT.mint(_CLAIMS._replace(certificate=b"\x01" * 32), _NOW_S)

    for now_s in (_NOW_S, _NOW_S + 599, _NOW_S - 60):
        claims = _MINT.verify(token.reveal(), now_s)
        assert claims == _CLAIMS._replace(
            certificate=b"\x01" * 32, expires_s=_NOW_S + 600, key_id=_KEY.public.key_id
        )
    assert "web" not in repr(token)
    assert len(token) < TOKEN_BYTES_MAX


def test_a_token_says_no_rights() -> None:
    """There is no role in a token: rights are looked up where they are decided."""
    assert set(_payload()) == {
        *("iss", "aud", "sub", "ten", "usr", "uid"),
        *("tep", "uep", "sid", "jti", "iat", "nbf", "exp"),
    }


@pytest.mark.parametrize("seconds", [600, 601, 10**9])
def test_a_token_ends(seconds: int) -> None:
    """A token is good until its last second and not in it."""
    _refused(_MINT.mint(_CLAIMS, _NOW_S).reveal(), _NOW_S + seconds)


def test_a_token_of_the_future_is_not_good_yet() -> None:
    """A minute of a clock that was set back is borne, and no more."""
    token = _MINT.mint(_CLAIMS, _NOW_S).reveal()

    assert _MINT.verify(token, _NOW_S - 60)
    _refused(token, _NOW_S - 61)
    _refused(_signed(_payload() | {"nbf": _NOW_S + 3_600}))


def test_no_algorithm_is_no_signature() -> None:
    """`none`, however it is spelled, is refused (RFC 8725 section 3.1)."""
    kid = _KEY.public.key_id

    for algorithm in ("none", "None", "NONE", "", None):
        header = {"typ": "kvs-at+jwt", "kid": kid, "alg": algorithm}
        _refused(_unsigned(header, _payload()))
        _refused(_unsigned(header, _payload(), b"x" * 64))


def test_the_public_key_is_no_shared_secret() -> None:
    """A token that is authenticated by the public key's bytes, in any form, is refused."""
    pem = _KEY.public.native.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    jwk = json.dumps({"kty": "OKP"}).encode()

    for secret in (_KEY.public.raw, pem, pem.strip(), jwk):
        for algorithm in ("HS256", "HS384", "HS512"):
            signer = jwt.algorithms.HMACAlgorithm(
                getattr(jwt.algorithms.HMACAlgorithm, algorithm.replace("HS", "SHA"))
            )
            header = {"typ": "kvs-at+jwt", "kid": _KEY.public.key_id, "alg": algorithm}
            text = _unsigned(header, _payload()).rpartition(".")[0]
            signature = signer.sign(text.encode(), secret)
            _refused(f"{text}.{_text(signature)}")


def test_a_token_of_another_member_is_as_good_as_ones_own() -> None:
    """Whoever logged in at one member is known to every member of its cluster, and to no other."""
    minted = TokenMint(_NEIGHBOUR, _CLUSTER, 600, _KEYS.get).mint(_CLAIMS, _NOW_S).reveal()
    foreign = TokenMint(_NEIGHBOUR, ClusterId(0xABD), 600, _KEYS.get).mint(_CLAIMS, _NOW_S)

    assert _MINT.verify(minted, _NOW_S) == _CLAIMS._replace(
        expires_s=_NOW_S + 600, key_id=_NEIGHBOUR.public.key_id
    )
    _refused(foreign.reveal())


def test_a_token_is_good_under_the_key_that_it_names_alone() -> None:
    """What one member signed is refused under another member's id, though both are good."""
    for signer, named in ((_KEY, _NEIGHBOUR), (_NEIGHBOUR, _KEY)):
        _refused(_signed(_payload(), key=signer, header={"kid": named.public.key_id}))


def test_another_key_is_another_cluster() -> None:
    """A token that another key signed is refused, also under our key's id."""
    other = SigningKey(fresh_key())

    _refused(_signed(_payload(), key=other))
    _refused(_signed(_payload(), key=other, header={"kid": _KEY.public.key_id}))


@pytest.mark.parametrize("claim", ["iss", "aud"])
def test_a_token_of_another_cluster_is_refused(claim: str) -> None:
    """A cluster with the same key and another id has no say here."""
    other = TokenMint(_KEY, ClusterId(0xABD), 600, _KEYS.get)

    _refused(other.mint(_CLAIMS, _NOW_S).reveal())
    _refused(_signed(_payload() | {claim: "abd"}))
    _refused(_signed(_payload() | {claim: ["abc", "abd"]}))


@pytest.mark.parametrize(
    "claim",
    ["iss", "aud", "sub", "ten", "usr", "uid", "tep", "uep", "sid", "jti", "iat", "nbf", "exp"],
)
def test_a_token_without_a_claim_is_refused(claim: str) -> None:
    """Every claim has to be there, and be what it is (etcd once crashed without them)."""
    payload = _payload()
    del payload[claim]

    _refused(_signed(payload))
    if claim not in {"sid", "usr", "sub", "iat", "jti"}:
        for wrong in (None, {}, [], "x", {"x": 1}):
            _refused(_signed(_payload() | {claim: wrong}))


@pytest.mark.parametrize("claim", ["ten", "uid", "tep", "uep", "exp", "nbf"])
def test_a_number_without_an_end_is_refused(claim: str) -> None:
    """What no integer can hold is no claim."""
    for number in (float("inf"), float("-inf"), float("nan")):
        _refused(_signed(_payload() | {claim: number}))


@pytest.mark.parametrize("payload", [[], "x", 7, None, [{}]], ids=str)
def test_a_payload_that_is_no_object_is_refused(payload: object) -> None:
    """Claims are members of an object."""
    _refused(_signed(payload))


@pytest.mark.parametrize(
    "kid",
    [
        *("", "x", "../../../../etc/passwd", "/dev/null", "file:///etc/passwd"),
        *("https://example.com/key", "' OR 1=1 --", "\x00", "\u202e", None, 0, ["x"], {"x": 1}),
    ],
)
def test_a_key_id_is_compared_and_never_looked_up(kid: object) -> None:
    """A key id that is not ours, whatever it looks like, is refused."""
    header = {"typ": "kvs-at+jwt", "kid": kid, "alg": "EdDSA"}

    _refused(_unsigned(header, _payload(), b"x" * 64))
    header.pop("kid")
    _refused(_unsigned(header, _payload(), b"x" * 64))


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "at+jwt"},
        {"b64": False, "crit": ["b64"]},
        {"crit": ["exp"]},
    ],
    ids=str,
)
def test_a_token_of_another_kind_is_refused(header: dict[str, Any]) -> None:
    """What was signed by our key for another purpose is no token of ours."""
    _refused(_signed(_payload(), header=header))


def test_a_key_that_a_token_brings_is_not_used() -> None:
    """Headers that name or hold a key have no effect (RFC 8725 section 3.8)."""
    other = SigningKey(fresh_key())
    x = _text(other.public.raw)
    brought = {
        "jwk": {"kty": "OKP", "crv": "Ed25519", "x": x},
        "jku": "https://example.com/keys",
        "x5u": "https://example.com/certificate",
    }

    for name, value in brought.items():
        _refused(_signed(_payload(), key=other, header={name: value, "kid": _KEY.public.key_id}))


@pytest.mark.parametrize(
    "confirmation",
    [
        {},
        {"x5t#S256": None},
        {"x5t#S256": 7},
        {"jkt": "x"},
        {"x5t#S256": "AA", "jkt": "x"},
        "AA",
        [],
        {"x5t#S256": "A"},
        {"x5t#S256": ""},
    ],
    ids=str,
)
def test_a_binding_of_an_unknown_kind_is_not_overlooked(confirmation: object) -> None:
    """A token bound in a way that is not understood is not taken for one that is not bound."""
    _refused(_signed(_payload() | {"cnf": confirmation}))


def test_a_huge_token_is_refused_before_it_is_read() -> None:
    """More than a token can have is refused by its length."""
    token = _MINT.mint(_CLAIMS._replace(user="u" * 4_000), _NOW_S).reveal()

    assert len(token) > TOKEN_BYTES_MAX
    _refused(token)
    _refused(b"." * 100_000)


def test_a_changed_token_is_refused() -> None:
    """Every character of a token counts, and none may be added."""
    token = _MINT.mint(_CLAIMS, _NOW_S).reveal()

    for place in range(len(token) - 1):
        changed = bytearray(token)
        changed[place] ^= 0x01
        _refused(bytes(changed))
    for extra in (b"=", b".", b"x", b"\n", b" "):
        _refused(token + extra)


@given(st.binary(max_size=300))
@example(b"")
@example(b"..")
@example(b"e30.e30.e30")
@example(b"\xff.\xff.\xff")
@example(base64.urlsafe_b64encode(b"[" * 3_000).rstrip(b"=") + b".a.b")
@example(base64.urlsafe_b64encode(b'{"a":' * 600).rstrip(b"=") + b".a.b")
def test_any_bytes_are_refused_as_a_token(token: bytes) -> None:
    """Whatever is sent as a token, there is one answer."""
    _refused(token)


@given(
    st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64"]), st.text(max_size=5)),
    st.binary(max_size=80),
    st.binary(max_size=70),
)
def test_any_three_parts_are_refused_as_a_token(
    header: dict[str, str], payload: bytes, signature: bytes
) -> None:
    """A header of ours over any payload and signature is no token."""
    parts = (json.dumps({"kid": _KEY.public.key_id} | header).encode(), payload, signature)

    _refused(b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts))
