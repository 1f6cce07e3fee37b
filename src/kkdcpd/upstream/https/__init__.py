"""The HTTPS way out: sends messages to KDC proxies ([MS-KKDCP])."""
