"""Loads the files of [upstream.https] into a TLS context."""

import ssl

from kkdcpd.config.sections.https import HttpsConfig
from kkdcpd.errors import SettingError

__all__ = ["load_authorities", "load_certificate"]


def load_authorities(context: ssl.SSLContext, https: HttpsConfig) -> None:
    """Let the context trust the configured authorities, or else those of the system.

    Raises:
        SettingError: the file has no readable certificates.
    """
    try:
        if https.ca_file:
            context.load_verify_locations(https.ca_file)
        else:
            context.set_default_verify_paths()
    except OSError as error:
        raise SettingError(
            f"{https.ca_file} has no readable certificates of authorities: {error.strerror or error}",
            "name a PEM file with at least one certificate of an authority",
        ) from error


def load_certificate(context: ssl.SSLContext, https: HttpsConfig) -> None:
    """Let the context show the configured client certificate, if there is one.

    Raises:
        SettingError: the files are no certificate with its key.
    """
    if not https.certificate:
        return
    try:
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(https.certificate, https.key, password="")
    except OSError as error:
        raise SettingError(
            f"{https.certificate} is no client certificate with its key: {error.strerror or error}",
            "name PEM files of a certificate and of its key, which has no password",
        ) from error
