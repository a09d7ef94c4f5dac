"""The replicated state machine: consensus, the key space, leases, watches, accounts."""
