"""The local way in: Kerberos by UDP, TCP and UNIX sockets, for programs without a KDC proxy client."""
