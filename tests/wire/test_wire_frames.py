"""Frames leave as RFC 9113 section 4.1 and 6 draw them; read back by another implementation."""

import hyperframe.frame as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsecure.wire.h2 import frames
from kvsecure.wire.h2.frames import ErrorCode, FrameType, Setting

_U31 = st.integers(0, 2**31 - 1)
_U32 = st.integers(0, 2**32 - 1)


def _read(content: bytes) -> oracle.Frame:
    found, length = oracle.Frame.parse_frame_header(memoryview(content[:9]))
    found.parse_body(memoryview(content[9:]))
    assert len(content) == 9 + length
    return found


@given(_U31, st.sampled_from(ErrorCode))
def test_reset_is_read_back(stream: int, code: ErrorCode) -> None:
    """A reset names its stream and its code (section 6.4)."""
    found = _read(frames.encode_reset(stream or 1, code))

    assert isinstance(found, oracle.RstStreamFrame)
    assert (found.stream_id, found.error_code) == (stream or 1, code)


@given(st.dictionaries(st.sampled_from(Setting), _U32))
def test_settings_are_read_back(settings: dict[Setting, int]) -> None:
    """Settings carry each number with its value (section 6.5)."""
    found = _read(frames.encode_settings(settings))

    assert isinstance(found, oracle.SettingsFrame)
    assert found.settings == settings
    assert "ACK" not in found.flags


@given(st.binary(min_size=8, max_size=8))
def test_ping_is_answered_with_its_content(content: bytes) -> None:
    """An answer to a ping has its content and the mark of an answer (section 6.7)."""
    found = _read(frames.encode_ping_ack(content))

    assert isinstance(found, oracle.PingFrame)
    assert (found.opaque_data, "ACK" in found.flags) == (content, True)


@given(_U31, st.sampled_from(ErrorCode), st.binary(max_size=64))
def test_goaway_is_read_back(last: int, code: ErrorCode, why: bytes) -> None:
    """A GOAWAY names the last stream, its code and its reason (section 6.8)."""
    found = _read(frames.encode_goaway(last, code, why))

    assert isinstance(found, oracle.GoAwayFrame)
    assert (found.last_stream_id, found.error_code, found.additional_data) == (last, code, why)


@given(_U31, st.integers(1, 2**31 - 1))
def test_window_update_is_read_back(stream: int, increment: int) -> None:
    """A window update names its stream and its increment (section 6.9)."""
    found = _read(frames.encode_window_update(stream, increment))

    assert isinstance(found, oracle.WindowUpdateFrame)
    assert (found.stream_id, found.window_increment) == (stream, increment)


@given(st.integers(0, 2**24 - 1), st.integers(0, 255), st.integers(0, 255), _U31)
def test_frame_header_has_nine_bytes(length: int, kind: int, flags: int, stream: int) -> None:
    """Length, type, flags and stream stand in nine bytes (section 4.1)."""
    header = frames.frame_header(length, kind, flags, stream)

    assert len(header) == frames.FRAME_HEADER_BYTES == 9
    assert int.from_bytes(header[:3], "big") == length
    assert (header[3], header[4]) == (kind, flags)
    assert int.from_bytes(header[5:], "big") == stream


@pytest.mark.parametrize("kind", FrameType)
def test_frame_types_have_the_registered_numbers(kind: FrameType) -> None:
    """Each type has the number that the registry gives it (section 11.2)."""
    names = {each.type: each.__name__ for each in oracle.FRAMES.values()}

    assert names[kind].removesuffix("Frame").upper() == kind.name.replace("_", "")
