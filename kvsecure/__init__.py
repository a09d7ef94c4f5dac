"""kvsecure: a secure, multi-tenant, strongly consistent key-value store that speaks etcd's API."""

__version__ = "0.1.0"
