"""What commands print: answers of the store as JSON, tables, lines and values.

Owns: the documented form of every answer.
Never: mixes messages for people into output for scripts; those go to stderr.
"""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, assert_never

import click

from kvsecure.cli.texts import id_text, json_bytes, json_text, shown, table_text

if TYPE_CHECKING:
    from kvsecure.client import Deleted, Found, Header, KeyValue, Result, Stored, TxnResult
    from kvsecure.client.watch import Event

__all__ = [
    "deleted_json",
    "event_json",
    "found_json",
    "header_json",
    "kv_json",
    "kv_lines",
    "kv_table",
    "print_bytes",
    "print_json",
    "print_table",
    "result_lines",
    "stdout_is_terminal",
    "stored_json",
    "txn_json",
]


def stdout_is_terminal() -> bool:
    """Tell whether a person reads the output."""
    return sys.stdout.isatty()


def print_bytes(content: bytes) -> None:
    """Write bytes as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def print_json(form: dict[str, Any]) -> None:
    """Write an object on a line of its own."""
    click.echo(json_text(form))


def print_table(columns: list[str], rows: Iterable[list[str]]) -> None:
    """Write a table."""
    click.echo(table_text(columns, list(rows)))


def header_json(header: "Header") -> dict[str, Any]:
    """Return the fields `cluster_id`, `member_id`, `revision` and `raft_term`."""
    return {
        "cluster_id": id_text(header.cluster_id),
        "member_id": id_text(header.member_id),
        "revision": header.revision,
        "raft_term": header.raft_term,
    }


def kv_json(kv: "KeyValue") -> dict[str, Any]:
    """Return the fields of a key with its value."""
    return {
        **json_bytes("key", kv.key),
        **json_bytes("value", kv.value),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "lease": id_text(kv.lease) if kv.lease else None,
    }


def kv_table(kvs: Iterable["KeyValue"]) -> str:
    """Return keys with their values as a table."""
    rows = [
        [
            shown(kv.key),
            shown(kv.value),
            str(kv.mod_revision),
            str(kv.version),
            id_text(kv.lease) if kv.lease else "",
        ]
        for kv in kvs
    ]
    return table_text(["KEY", "VALUE", "REVISION", "VERSION", "LEASE"], rows)


def kv_lines(kvs: Iterable["KeyValue"]) -> list[str]:
    """Return a line for each key: key, tab, value."""
    return [f"{shown(kv.key)}\t{shown(kv.value)}" for kv in kvs]


def found_json(found: "Found") -> dict[str, Any]:
    """Return the form of what was read."""
    return {
        "header": header_json(found.header),
        "kvs": [kv_json(kv) for kv in found.kvs],
        "count": found.count,
        "more": found.more,
    }


def stored_json(stored: "Stored") -> dict[str, Any]:
    """Return the form of what was written."""
    return {
        "header": header_json(stored.header),
        "prev_kv": kv_json(stored.previous) if stored.previous else None,
    }


def deleted_json(deleted: "Deleted") -> dict[str, Any]:
    """Return the form of what was deleted."""
    return {
        "header": header_json(deleted.header),
        "deleted": deleted.count,
        "prev_kvs": [kv_json(kv) for kv in deleted.previous],
    }


def txn_json(result: "TxnResult") -> dict[str, Any]:
    """Return the form of what a transaction did."""
    return {
        "header": header_json(result.header),
        "succeeded": result.succeeded,
        "responses": [_result_json(inner) for inner in result.results],
    }


def _result_json(result: "Result") -> dict[str, Any]:
    from kvsecure.client import Deleted, Found, Stored, TxnResult

    match result:
        case Found():
            return {"range": found_json(result)}
        case Stored():
            return {"put": stored_json(result)}
        case Deleted():
            return {"delete": deleted_json(result)}
        case TxnResult():
            return {"txn": txn_json(result)}
        case _:
            assert_never(result)


def result_lines(result: "Result") -> list[str]:
    """Return one operation of a transaction as lines for people."""
    from kvsecure.client import Deleted, Found, Stored, TxnResult

    match result:
        case Found():
            return kv_lines(result.kvs) or [str(result.count)]
        case Stored():
            return ["OK", *(kv_lines([result.previous]) if result.previous else [])]
        case Deleted():
            return [str(result.count), *kv_lines(result.previous)]
        case TxnResult():
            inner = [line for each in result.results for line in result_lines(each)]
            return ["SUCCESS" if result.succeeded else "FAILURE", *inner]
        case _:
            assert_never(result)


def event_json(event: "Event") -> dict[str, Any]:
    """Return the form of a change."""
    return {
        "type": event.type.value,
        "kv": kv_json(event.kv),
        "prev_kv": kv_json(event.previous) if event.previous else None,
    }
