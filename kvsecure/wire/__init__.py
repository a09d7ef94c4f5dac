"""Protocols as values: bytes in, events out; no socket, no clock."""
