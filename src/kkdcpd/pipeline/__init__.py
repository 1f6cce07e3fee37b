"""The part between ways in and ways out: it handles Kerberos messages, and no HTTP, TLS or sockets."""
