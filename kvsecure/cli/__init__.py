"""The command line of kvsecure: one file per noun, over the client SDK.

Owns: commands, what they print, and their exit statuses.
Never: speaks to a server except through `kvsecure.client`.
"""
