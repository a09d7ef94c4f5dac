"""Recipes: sealing, keys, signatures, passwords. Nothing above this room sees a primitive."""
