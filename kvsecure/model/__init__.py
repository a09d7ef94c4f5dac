"""The nouns everyone speaks: keys, ids, errors, limits, secrets, callers. Standard library only."""
