"""HTTP/2 for a server (RFC 9113), with header compression (RFC 7541) from `hpack`."""
