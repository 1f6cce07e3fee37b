"""Reads the files that a configuration names: krb5.conf, certificates, tokens, the key of the pseudonyms."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from kkdcpd.config.certificates import PairFacts, inspect_pair
from kkdcpd.config.client_ca import inspect_client_ca
from kkdcpd.config.dates import DatedItem
from kkdcpd.config.disk import is_temporary, remedy_of
from kkdcpd.config.https_files import load_authorities, load_certificate
from kkdcpd.config.krb5_conf import import_realms, is_dns_allowed
from kkdcpd.config.krb5_profile import MAX_PROFILE_BYTES, read_profile
from kkdcpd.config.problems import collected, join, refusal
from kkdcpd.config.schema import Config, find_unserved
from kkdcpd.config.secret_files import read_principals_key, read_tokens
from kkdcpd.config.sections.https import HttpsConfig
from kkdcpd.config.sections.log import LogConfig
from kkdcpd.config.sections.realms import RealmConfig
from kkdcpd.config.sections.tls import AdditionalCertificate, TlsConfig
from kkdcpd.errors import ConfigError, ConfigProblem, SettingError

__all__ = ["Findings", "read_named_files"]


@dataclass(slots=True, kw_only=True)
class Findings:
    """The problems and warnings of all files, and the certificates and lists with validity dates."""

    problems: list[ConfigProblem] = field(default_factory=list)
    warnings: list[ConfigProblem] = field(default_factory=list)
    dated: list[DatedItem] = field(default_factory=list)

    def add(self, facts: PairFacts) -> None:
        """Add the facts of a certificate and its key."""
        self.warnings += facts.warnings
        self.dated.append(facts.item)


def read_named_files(config: Config, findings: Findings, *, now: datetime) -> Config:
    """Return the configuration with the contents of its files. A file that is not usable is a finding."""
    with collected(findings.problems):
        config = _with_krb5_conf(config, findings)
    _inspect_https(config.upstream.https, findings)
    return replace(
        config,
        tls=_inspected(config.tls, findings, now) if config.tls else None,
        realms=tuple(_with_tokens(realm, findings) for realm in config.realms),
        log=_with_key(config.log, findings),
    )


def _with_krb5_conf(config: Config, findings: Findings) -> Config:
    """Return the configuration with the servers in krb5.conf for the realms without lists."""
    path = config.locate.krb5_conf
    if path is None:
        return config
    relations = read_profile(path, _DISK, key="locate.krb5_conf")
    imported = import_realms(config.realms, relations)
    findings.warnings += imported.warnings
    has_dns = is_dns_allowed(relations)
    problems = [
        problem
        for realm in imported.realms
        for problem in find_unserved(realm, krb5_conf=path, is_dns_allowed=has_dns)
    ]
    if problems:
        raise ConfigError(problems)
    return replace(config, realms=imported.realms)


class _Disk:
    """The files of this host (`krb5_profile.Files`)."""

    def text(self, path: Path) -> str:
        with _setting_errors(path):
            if path.exists() and not path.is_file():
                raise SettingError(f"{path} is no regular file", "name a file")
            with path.open("rb") as file:
                contents = file.read(MAX_PROFILE_BYTES + 1)
        # Only comments have characters beyond ASCII, in any encoding.
        return contents.decode(errors="replace")

    def names(self, directory: Path) -> tuple[str, ...]:
        with _setting_errors(directory):
            return tuple(entry.name for entry in directory.iterdir() if entry.is_file())


_DISK = _Disk()


@contextmanager
def _setting_errors(path: Path) -> Iterator[None]:
    """Turn errors of the system into SettingErrors."""
    try:
        yield
    except FileNotFoundError as error:
        problem, remedy = f"there is no {path}", "put it there, or correct the path"
        raise SettingError(problem, remedy, is_temporary=True) from error
    except OSError as error:
        problem = f"{path} can't be read: {error.strerror}"
        raise SettingError(problem, remedy_of(error, path), is_temporary=is_temporary(error)) from error


def _inspected(tls: TlsConfig, findings: Findings, now: datetime) -> TlsConfig:
    """Return the settings with the server names of all certificates."""
    with collected(findings.problems):
        findings.add(inspect_pair(tls.certificate, tls.key, section="tls", now=now))
    additional = []
    for position, pair in enumerate(tls.additional):
        with collected(findings.problems):
            additional.append(_inspected_pair(pair, f"tls.additional[{position}]", findings, now))
    if tls.client_ca:
        with collected(findings.problems):
            clients = inspect_client_ca(tls.client_ca, tls.client_crl, now=now)
            findings.warnings += clients.warnings
            findings.dated += clients.items
    return replace(tls, additional=tuple(additional))


def _inspected_pair(
    pair: AdditionalCertificate, section: str, findings: Findings, now: datetime
) -> AdditionalCertificate:
    facts = inspect_pair(pair.certificate, pair.key, section=section, now=now)
    findings.add(facts)
    if names := pair.server_names or facts.dns_names:
        return replace(pair, server_names=names)
    problem = "is missing, and the certificate has no DNS name that clients can ask for"
    remedy = 'write the names it is for, such as ["kdc.example.com"]'
    raise refusal(f"{section}.server_names", problem, remedy)


def _inspect_https(https: HttpsConfig, findings: Findings) -> None:
    """Find files that connections to KDC proxies cannot use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for setting, load in (("ca_file", load_authorities), ("certificate", load_certificate)):
        with collected(findings.problems):
            try:
                load(context, https)
            except SettingError as error:
                raise refusal(f"upstream.https.{setting}", error.problem, error.remedy or "") from error


def _with_tokens(realm: RealmConfig, findings: Findings) -> RealmConfig:
    """Return the realm with the tokens that open it."""
    if realm.tokens_file is None:
        return realm
    with collected(findings.problems):
        found = read_tokens(realm.tokens_file, setting=join(join("realms", realm.name), "tokens_file"))
        findings.warnings += found.warnings
        return replace(realm, tokens=found.digests)
    return realm


def _with_key(log: LogConfig, findings: Findings) -> LogConfig:
    """Return the settings with the key of the pseudonyms."""
    if log.principals_key_file is None:
        return log
    with collected(findings.problems):
        found = read_principals_key(log.principals_key_file, setting="log.principals_key_file")
        findings.warnings += found.warnings
        return replace(log, principals_key=found.key)
    return log
