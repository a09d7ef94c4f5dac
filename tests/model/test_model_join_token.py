"""Join tokens: one line of text, and nothing near it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.model.join_token import JoinToken
from kvsecure.model.secret import Secret

_ADDRESSES = st.sampled_from(
    ["10.0.0.1:2379", "[::1]:2379", "m1.internal:1", "localhost:65535", "a_b-c.d:22"]
)
_TOKENS = st.builds(
    lambda address, fingerprint, number, secret: JoinToken(
        address=address, fingerprint=fingerprint, token_id=number.hex(), secret=Secret(secret)
    ),
    _ADDRESSES,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=32, max_size=32),
)
_TOKEN = JoinToken(
    address="10.0.0.1:2379",
    fingerprint=b"f" * 32,
    token_id="0123456789abcdef",
    secret=Secret(b"s" * 32),
)


@given(_TOKENS)
def test_text_is_read_as_the_token_that_it_was_made_of(token: JoinToken) -> None:
    """A token's text is one short printable line that stands for it."""
    text = token.text()

    read = JoinToken.parse(Secret.of_text(f" {text.reveal_text()}\n"))

    assert read == token
    assert text.reveal_text().isprintable()
    assert " " not in text.reveal_text()
    assert len(text) < 160


@given(_TOKENS, st.data())
def test_text_with_another_letter_is_no_token(token: JoinToken, data: st.DataObject) -> None:
    """Whichever character is changed, left out or added: the text stands for no token."""
    text = token.text().reveal_text()
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="ascii", exclude_characters=text[place]))
    wrong = data.draw(
        st.sampled_from(
            [
                text[:place] + letter + text[place + 1 :],
                text[:place] + text[place + 1 :],
                text[:place] + "x" + text[place:],
                text[:place],
            ]
        )
    )
    if wrong.strip() == text:
        return

    with pytest.raises(ValueError, match=r"join token|address"):
        JoinToken.parse(Secret.of_text(wrong))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_token_or_an_error(content: bytes) -> None:
    """Nothing but a ValueError comes of what is no token, and nothing of it is in its text."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - no text is promised
        JoinToken.parse(Secret(content))

    assert "token" in str(raised.value) or "address" in str(raised.value)


def test_secret_is_not_shown() -> None:
    """Neither the token nor its text shows a secret when it is printed."""
    shown = f"{_TOKEN!r} {_TOKEN} {_TOKEN.text()!r} {_TOKEN.text()}"

    assert "s" * 32 not in shown
    assert _TOKEN.text().reveal_text() not in shown


@pytest.mark.parametrize("address", ["", "host", "host:0", "ho st:1", "h/x:1", "h:123456", "@h:1"])
def test_address_is_one_that_can_be_dialled(address: str) -> None:
    """A token with anything but HOST:PORT in it cannot be made."""
    with pytest.raises(ValueError, match="address"):
        JoinToken(
            address=address,
            fingerprint=_TOKEN.fingerprint,
            token_id=_TOKEN.token_id,
            secret=_TOKEN.secret,
        )
