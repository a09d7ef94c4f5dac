"""Messages as JSON, the way etcd's gateway writes and reads them.

Owns: the mapping between messages and JSON, made once for each message type from its descriptor.
Never: knows methods or HTTP; repeats in an error what the caller sent.
Follows: etcd-surface section 4.2: field names as in the proto, 64-bit integers as strings, bytes in
    base64, enums by name, nothing that is zero; the names of lowerCamelCase are read too, and
    unknown fields are passed over.
Keeps: what is read is read strictly: base64 that is none, a number out of range or a field given
    twice is an error and never some other value; work for one text is bounded by its count of
    values before anything is made of it.
"""

import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar, final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from kvsecure.model.errors import invariant

__all__ = [
    "JsonSplitter",
    "Misshapen",
    "encode_fields",
    "encode_json",
    "fill_message",
    "parse_json",
]

M = TypeVar("M", bound=Message)

type_render = Callable[[Any], str]
type_convert = Callable[[Any], Any]

# Protocol buffers' own bound for nested messages.
_DEPTH_MAX: Final = 100
_DIGITS: Final = re.compile(r"-?[0-9]{1,20}")
_URL_SAFE: Final = str.maketrans("-_", "+/")
_SIGNED_BITS: Final = {
    FieldDescriptor.CPPTYPE_INT32: 32,
    FieldDescriptor.CPPTYPE_INT64: 64,
}
_UNSIGNED_BITS: Final = {
    FieldDescriptor.CPPTYPE_UINT32: 32,
    FieldDescriptor.CPPTYPE_UINT64: 64,
}
_LONG: Final = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


@final
class Misshapen(Exception):
    """A text is not JSON, or not that of the message it should be."""


# --- writing ------------------------------------------------------------------------------------


def encode_json(message: Message) -> str:
    """Return a message as JSON without spaces; fields in the order of their numbers."""
    renders = _renders_of(message.DESCRIPTOR)
    parts = []
    for field, value in message.ListFields():
        name, render = renders[field.number]
        parts.append(name + render(value))
    return f"{{{','.join(parts)}}}"


def encode_fields(message: Message) -> Iterator[tuple[int, str, str]]:
    """Yield the fields of a message as JSON has them: number, name with its colon, and value."""
    renders = _renders_of(message.DESCRIPTOR)
    for field, value in message.ListFields():
        name, render = renders[field.number]
        yield field.number, name, render(value)


@cache
def _renders_of(descriptor: Descriptor) -> Mapping[int, tuple[str, type_render]]:
    """Return, by number, what a field begins with and what writes its value."""
    renders = {}
    for field in descriptor.fields:
        render = _render_of(field)
        if field.is_repeated:
            render = _render_all(render)
        renders[field.number] = (f'"{field.name}":', render)
    return renders


def _render_of(field: FieldDescriptor) -> type_render:
    if field.cpp_type in _LONG:
        return _render_long
    if field.cpp_type in _SIGNED_BITS or field.cpp_type in _UNSIGNED_BITS:
        return str
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _render_bool
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        names = {number: f'"{name}"' for name, number in _numbers_of(field).items()}
        return lambda number: names.get(number) or str(number)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _render_bytes
    if field.type == FieldDescriptor.TYPE_STRING:
        return json.dumps
    _check_plain(field)
    return encode_json


def _render_all(render: type_render) -> type_render:
    return lambda values: f"[{','.join(map(render, values))}]"


def _render_long(number: int) -> str:
    return f'"{number}"'


def _render_bool(value: bool) -> str:  # noqa: FBT001 - it is the value that is written
    return "true" if value else "false"


def _render_bytes(content: bytes) -> str:
    return f'"{binascii.b2a_base64(content, newline=False).decode("ascii")}"'


# --- reading ------------------------------------------------------------------------------------


class _Field(NamedTuple):
    """How one field is read."""

    name: str
    # What must not be given twice: the field, or the oneof that it is in.
    place: str
    is_message: bool
    is_repeated: bool
    convert: type_convert


def parse_json(content: bytes, values_max: int) -> object:
    """Return what a JSON text says.

    Args:
        content: The text, in UTF-8.
        values_max: How many values there may be; about as many are counted before it is read.

    Raises:
        Misshapen: It is no JSON, or has more values.
    """
    if content.count(b",") + content.count(b"{") + content.count(b"[") > values_max:
        raise Misshapen("too many values")
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        # The words of the parser may be the caller's, and so a password's.
        raise Misshapen("it is not JSON") from None


def fill_message(message: Message, value: object) -> None:
    """Set the fields of a message from what a JSON text says; nothing is set by null.

    Raises:
        Misshapen: It is not that of such a message.
    """
    if value is not None:
        _fill(message, value, _DEPTH_MAX)


def _fill(message: Message, value: object, depth_left: int) -> None:
    if not isinstance(value, dict):
        raise Misshapen(f"{message.DESCRIPTOR.name} is not an object")
    if not depth_left:
        raise Misshapen("it is nested too deep")
    fields = _fields_of(message.DESCRIPTOR)
    seen = set()
    for name, content in value.items():
        field = fields.get(name)
        if field is None or content is None:
            continue
        if field.place in seen:
            raise Misshapen(f"{field.place} is given twice")
        seen.add(field.place)
        try:
            _set(message, field, content, depth_left)
        except (ValueError, TypeError):
            raise Misshapen(f"{field.name} has a value that it cannot have") from None


def _set(message: Message, field: _Field, content: Any, depth_left: int) -> None:
    if field.is_repeated:
        if not isinstance(content, list):
            raise Misshapen(f"{field.name} is not a list")
        elements = getattr(message, field.name)
        if field.is_message:
            for one in content:
                _fill(elements.add(), one, depth_left - 1)
        else:
            elements.extend([field.convert(one) for one in content])
    elif field.is_message:
        part = getattr(message, field.name)
        part.SetInParent()
        _fill(part, content, depth_left - 1)
    else:
        setattr(message, field.name, field.convert(content))


@cache
def _fields_of(descriptor: Descriptor) -> Mapping[str, _Field]:
    """Return how the fields of a message are read, by each name that they may have."""
    fields = {}
    for each in descriptor.fields:
        is_message = each.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
        if is_message:
            _check_plain(each)
        field = _Field(
            name=each.name,
            place=each.containing_oneof.name if each.containing_oneof else each.name,
            is_message=is_message,
            is_repeated=each.is_repeated,
            convert=_refuse if is_message else _convert_of(each),
        )
        fields[each.name] = field
        fields[each.json_name] = field
    return fields


def _convert_of(field: FieldDescriptor) -> type_convert:
    if (bits := _SIGNED_BITS.get(field.cpp_type)) is not None:
        return _integer(-(1 << bits - 1), (1 << bits - 1) - 1)
    if (bits := _UNSIGNED_BITS.get(field.cpp_type)) is not None:
        return _integer(0, (1 << bits) - 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _bool
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return _enum(_numbers_of(field))
    return _bytes if field.type == FieldDescriptor.TYPE_BYTES else _string


def _integer(lowest: int, highest: int) -> type_convert:
    def convert(value: object) -> int:
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError
        if not lowest <= value <= highest:
            raise ValueError
        return value

    return convert


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    # Half of a surrogate pair is no character; refused here and not where it is stored.
    value.encode()
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError
    digits = value.translate(_URL_SAFE)
    if "=" not in digits:
        digits += "=" * (-len(digits) % 4)
    if len(digits) % 4 or digits.endswith("==="):
        raise ValueError
    return binascii.a2b_base64(digits, strict_mode=True)


def _enum(numbers: Mapping[str, int]) -> type_convert:
    number_of = _integer(-(1 << 31), (1 << 31) - 1)

    def convert(value: object) -> int:
        if isinstance(value, str):
            known = numbers.get(value)
            if known is None:
                raise ValueError
            return known
        return int(number_of(value))

    return convert


def _numbers_of(field: FieldDescriptor) -> dict[str, int]:
    return {value.name: value.number for value in field.enum_type.values} if field.enum_type else {}


def _refuse(_: object) -> object:
    raise TypeError


def _refuse_constant(_: str) -> object:
    """Refuse NaN and the infinities, which are no JSON."""
    raise ValueError


def _check_plain(field: FieldDescriptor) -> None:
    """Stop before a message with a JSON form of its own, or a map, is taken for a plain one."""
    whole = field.message_type
    plain = (
        whole is not None
        and not whole.GetOptions().map_entry
        and not whole.full_name.startswith("google.protobuf.")
    )
    invariant(plain, f"{field.full_name} has no JSON form here")


# --- many texts in a row ------------------------------------------------------------------------

_OUTSIDE: Final = re.compile(rb'["{}\[\]]')
_INSIDE: Final = re.compile(rb'["\\]')
_SPACE: Final = b" \t\r\n"
_SPACES: Final = re.compile(rb"[ \t\r\n]*")


@final
class JsonSplitter:
    """Cuts a row of JSON objects into the texts of each, however the row comes in."""

    __slots__ = ("_at", "_bytes_max", "_depth", "_in_string", "_text")

    def __init__(self, bytes_max: int) -> None:
        """Begin a row.

        Args:
            bytes_max: How long one text may be.
        """
        self._bytes_max = bytes_max
        self._text = bytearray()
        # How far the text has been looked at.
        self._at = 0
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take in data; return the texts that are whole now.

        Raises:
            Misshapen: Something stands between objects, or one is too long.
        """
        text = self._text
        text += data
        whole = []
        while (end := self._end_of_object()) is not None:
            whole.append(bytes(text[:end]))
            del text[:end]
            self._at = 0
        if len(text) > self._bytes_max:
            raise Misshapen(f"an object is longer than {self._bytes_max} bytes")
        return whole

    @property
    def rest_bytes(self) -> int:
        """How much of an object that is not whole is kept."""
        return len(self._text)

    @property
    def is_empty(self) -> bool:
        """Whether no part of an object is waiting for its rest."""
        return not self._text.strip(_SPACE)

    def _end_of_object(self) -> int | None:
        text = self._text
        if not self._at:
            # The match is gone before the text changes: a text that is looked at has one size.
            spaces = _SPACES.match(text)
            spaces_end = spaces.end() if spaces else 0
            del spaces, text[:spaces_end]
            if text and text[0] != 0x7B:
                raise Misshapen("what is between objects is none")
        while True:
            found = (_INSIDE if self._in_string else _OUTSIDE).search(text, self._at)
            if found is None:
                self._at = len(text)
                return None
            self._at = found.end()
            match found[0]:
                case b'"':
                    self._in_string = not self._in_string
                case b"\\":
                    if self._at == len(text):
                        # What is escaped has not come yet.
                        self._at -= 1
                        return None
                    self._at += 1
                case b"{" | b"[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if not self._depth:
                        return self._at
