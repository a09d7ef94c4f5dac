"""The revisioned key space: which versions a key has, and what they were."""
