"""The client SDK of kvsecure; it speaks etcd's API, so it works against etcd as well.

Owns: the public names of the SDK.
Never: code of its own.
"""

from kvsecure.client.client import Client
from kvsecure.client.errors import ClientError, CompactedError, Outcome, SettingsError
from kvsecure.client.keys import Keys
from kvsecure.client.operations import (
    KEEP,
    Compare,
    Comparison,
    Delete,
    Deleted,
    Fetch,
    Found,
    Keep,
    Operation,
    Order,
    Put,
    Range,
    Reading,
    Result,
    SortBy,
    Stored,
    Target,
    Txn,
    TxnResult,
)
from kvsecure.client.settings import Endpoint, Settings, Tls
from kvsecure.client.values import Header, KeyValue
from kvsecure.model.secret import Secret

__all__ = [
    "KEEP",
    "Client",
    "ClientError",
    "CompactedError",
    "Compare",
    "Comparison",
    "Delete",
    "Deleted",
    "Endpoint",
    "Fetch",
    "Found",
    "Header",
    "Keep",
    "KeyValue",
    "Keys",
    "Operation",
    "Order",
    "Outcome",
    "Put",
    "Range",
    "Reading",
    "Result",
    "Secret",
    "Settings",
    "SettingsError",
    "SortBy",
    "Stored",
    "Target",
    "Tls",
    "Txn",
    "TxnResult",
]
