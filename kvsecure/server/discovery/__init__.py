"""Discovery: who the first members are, for one that no flag tells: docs/adr/0028-discovery.md.

Nothing is imported here: DNS and gRPC are large, and wanted once in a member's life.
"""
