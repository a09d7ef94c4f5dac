"""Durable bytes, sealed: segments for the log and the audit trail, tables for the applied state."""
