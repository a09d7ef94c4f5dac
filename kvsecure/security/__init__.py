"""The only way in: who calls, what the law says, what the audit trail keeps, then the core."""
