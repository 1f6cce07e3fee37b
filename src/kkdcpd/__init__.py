"""kkdcpd: a Kerberos KDC proxy that speaks [MS-KKDCP] over HTTPS."""

__all__ = ["__version__"]

__version__ = "0.1.0.dev0"
