r"""The text form of a transaction: conditions, what to do if they hold, and what otherwise.

    # what must hold; nothing here always holds
    mod("/app/colour") = "7"
    value("/app/owner") != "nobody"

    put /app/colour blue
    get --prefix /app/

    get /app/colour

Three blocks, separated by one empty line each; a line that begins with `#` is a comment. Words are
separated by blanks; in double quotes a word may hold blanks and the escapes `\n`, `\t`, `\r`,
`\"`, `\\` and `\xNN`.

Owns: the grammar and its errors, which name the line.
Never: sends anything.
Follows: etcdctl's form, so that its files work: the targets are value, version, create, mod, lease.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, final

from kvsecure.client.keys import Keys
from kvsecure.client.operations import (
    KEEP,
    Compare,
    Comparison,
    Delete,
    Fetch,
    Operation,
    Put,
    Range,
    Reading,
    Target,
    Txn,
)

__all__ = ["TxnSyntaxError", "parse_txn"]

_TARGETS: Final = {
    "value": Target.VALUE,
    "val": Target.VALUE,
    "version": Target.VERSION,
    "ver": Target.VERSION,
    "create": Target.CREATE,
    "c": Target.CREATE,
    "mod": Target.MOD,
    "m": Target.MOD,
    "lease": Target.LEASE,
}
_NUMBER: Final = re.compile(rb"-?[0-9]{1,19}")
_LEASE: Final = re.compile(rb"(?:0x)?[0-9a-fA-F]{1,16}")
_CONDITION: Final = re.compile(rb"\s*(\w+)\s*\((.*)\)\s*(!=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_WORD: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"|([^\s"]+)')
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED: Final = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b'"': b'"', b"\\": b"\\"}


@final
class TxnSyntaxError(Exception):
    """The text is not a transaction; the error names the line."""


def parse_txn(text: bytes) -> Txn:
    """Read a transaction.

    Raises:
        TxnSyntaxError: It is none.
    """
    blocks: list[list[tuple[int, bytes]]] = [[], [], []]
    place = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith(b"#"):
            continue
        if line.strip():
            if place > 2:
                raise TxnSyntaxError(f"line {number}: there are only three blocks")
            blocks[place].append((number, line))
        else:
            place += 1
    return Txn(
        when=tuple(_condition(number, line) for number, line in blocks[0]),
        then=tuple(_operation(number, line) for number, line in blocks[1]),
        otherwise=tuple(_operation(number, line) for number, line in blocks[2]),
    )


def _condition(number: int, line: bytes) -> Compare:
    match = _CONDITION.fullmatch(line)
    target = _TARGETS.get(match[1].decode(errors="replace").lower()) if match else None
    if match is None or target is None:
        raise TxnSyntaxError(
            f'line {number}: not a condition, like mod("key") = "7" (targets: value, version, '
            "create, mod, lease)"
        )
    key = _only_word(number, match[2])
    operand = _only_word(number, match[4])
    return Compare(
        keys=Keys.one(key),
        target=target,
        comparison=Comparison(match[3].decode()),
        operand=_operand(number, target, operand),
    )


def _operand(number: int, target: Target, word: bytes) -> int | bytes:
    if target is Target.VALUE:
        return word
    if target is Target.LEASE:
        return _lease(number, word)
    if not _NUMBER.fullmatch(word):
        raise TxnSyntaxError(f"line {number}: {target.name.lower()} is compared with a number")
    return _bounded(number, int(word))


def _lease(number: int, word: bytes) -> int:
    if not _LEASE.fullmatch(word):
        raise TxnSyntaxError(f"line {number}: a lease is up to 16 hexadecimal digits")
    value = int(word, 16)
    return value - (1 << 64) if value >> 63 else value


def _bounded(number: int, value: int) -> int:
    if not -(1 << 63) <= value < 1 << 63:
        raise TxnSyntaxError(f"line {number}: the number is too large")
    return value


def _only_word(number: int, text: bytes) -> bytes:
    words = _words(number, text)
    if len(words) != 1:
        raise TxnSyntaxError(f"line {number}: expected one word, in quotes if it has blanks")
    return words[0]


def _words(number: int, text: bytes) -> list[bytes]:
    words: list[bytes] = []
    place = 0
    while place < len(text):
        if text[place : place + 1].isspace():
            place += 1
            continue
        match = _WORD.match(text, place)
        if match is None:
            raise TxnSyntaxError(f"line {number}: a quote is not closed")
        quoted = match[1]
        words.append(match[2] if quoted is None else _unescaped(number, quoted))
        place = match.end()
        if place < len(text) and not text[place : place + 1].isspace():
            raise TxnSyntaxError(f"line {number}: words are separated by blanks")
    return words


def _unescaped(number: int, quoted: bytes) -> bytes:
    def replace(match: re.Match[bytes]) -> bytes:
        name = match[1]
        if len(name) == 3:
            return bytes((int(name[1:], 16),))
        if name not in _ESCAPED:
            raise TxnSyntaxError(f"line {number}: unknown escape")
        return _ESCAPED[name]

    return _ESCAPE.sub(replace, quoted)


@final
@dataclass(slots=True, kw_only=True)
class _Line:
    """The words of an operation, sorted."""

    number: int
    words: list[bytes] = field(default_factory=list)
    options: dict[str, bytes] = field(default_factory=dict)


def _operation(number: int, text: bytes) -> Operation:
    verb, *rest = _words(number, text)
    match verb:
        case b"get":
            return _get(_sorted(number, rest, _GET_FLAGS, _GET_VALUES))
        case b"put":
            return _put(_sorted(number, rest, _PUT_FLAGS, _PUT_VALUES))
        case b"del":
            return _delete(_sorted(number, rest, _DELETE_FLAGS, ()))
        case _:
            raise TxnSyntaxError(f"line {number}: not an operation: get, put or del")


_GET_FLAGS: Final = ("prefix", "from-key", "keys-only", "count-only", "serializable")
_GET_VALUES: Final = ("limit", "rev")
_PUT_FLAGS: Final = ("prev-kv", "ignore-value", "ignore-lease")
_PUT_VALUES: Final = ("lease",)
_DELETE_FLAGS: Final = ("prefix", "from-key", "prev-kv")


def _sorted(number: int, words: list[bytes], flags: Iterable[str], values: Iterable[str]) -> _Line:
    line = _Line(number=number)
    left = iter(words)
    for word in left:
        if word == b"--":
            line.words += left
            break
        if not word.startswith(b"--"):
            line.words.append(word)
            continue
        name, has_value, value = word[2:].decode(errors="replace").partition("=")
        if name in flags and not has_value:
            line.options[name] = b""
        elif name in values:
            line.options[name] = value.encode() if has_value else next(left, b"")
        else:
            raise TxnSyntaxError(f"line {number}: unknown option --{name}")
    return line


def _chosen(line: _Line) -> Keys:
    if not 1 <= len(line.words) <= 2:
        raise TxnSyntaxError(f"line {line.number}: expected KEY, or KEY and END")
    key, *end = line.words
    if bool(end) + ("prefix" in line.options) + ("from-key" in line.options) > 1:
        raise TxnSyntaxError(f"line {line.number}: choose one of END, --prefix and --from-key")
    if "prefix" in line.options:
        return Keys.prefix(key)
    if "from-key" in line.options:
        return Keys.from_key(key)
    return Keys.between(key, end[0]) if end else Keys.one(key)


def _number(line: _Line, name: str) -> int:
    word = line.options.get(name, b"0")
    if not _NUMBER.fullmatch(word):
        raise TxnSyntaxError(f"line {line.number}: --{name} takes a number")
    return _bounded(line.number, int(word))


def _get(line: _Line) -> Range:
    fetch = Fetch.VALUES
    if "count-only" in line.options:
        fetch = Fetch.COUNT
    elif "keys-only" in line.options:
        fetch = Fetch.KEYS
    return Range(
        keys=_chosen(line),
        limit=_number(line, "limit"),
        revision=_number(line, "rev"),
        fetch=fetch,
        reading=(Reading.SERIALIZABLE if "serializable" in line.options else Reading.LINEARIZABLE),
    )


def _put(line: _Line) -> Put:
    keeps_value = "ignore-value" in line.options
    if len(line.words) != (1 if keeps_value else 2):
        raise TxnSyntaxError(f"line {line.number}: expected KEY and VALUE")
    lease = _lease(line.number, line.options["lease"]) if "lease" in line.options else 0
    return Put(
        key=line.words[0],
        value=KEEP if keeps_value else line.words[1],
        lease=KEEP if "ignore-lease" in line.options else lease,
        previous="prev-kv" in line.options,
    )


def _delete(line: _Line) -> Delete:
    return Delete(keys=_chosen(line), previous="prev-kv" in line.options)
