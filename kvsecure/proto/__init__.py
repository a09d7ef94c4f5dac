"""Messages on the wire, in the log and on the disk; generated from the `.proto` files here."""
