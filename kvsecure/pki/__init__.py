"""Certificates: who may say who they are, and how that is checked.

Owns: the authority, its profiles, identities in certificates, key files, and the one TLS policy.
Never: decides what an identity may do.
"""
