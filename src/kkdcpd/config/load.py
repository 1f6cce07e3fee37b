"""From a file's name to a configuration that can be used, or to every reason why it can't.

The texts are judged first, then the files they name: a wrong path is worth a word only in a sound file.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from kkdcpd.config.addresses import zone_of
from kkdcpd.config.certificates import inspect_pair
from kkdcpd.config.client_ca import inspect_client_ca
from kkdcpd.config.dates import DatedItem
from kkdcpd.config.disk import is_temporary, read_bytes, remedy_of
from kkdcpd.config.homes import homes_named
from kkdcpd.config.krb5_conf import SOURCE, import_realms, is_dns_allowed
from kkdcpd.config.krb5_profile import MAX_PROFILE_BYTES, read_profile
from kkdcpd.config.problems import Location, collected, join
from kkdcpd.config.reader import Table
from kkdcpd.config.schema import Config, find_unserved
from kkdcpd.config.secret_files import read_principals_key, read_tokens
from kkdcpd.config.sections.admin import AdminConfig
from kkdcpd.config.sections.log import LogConfig
from kkdcpd.config.sections.policy import PolicyConfig
from kkdcpd.config.sections.process import ProcessConfig
from kkdcpd.config.sections.realms import RealmConfig
from kkdcpd.config.sections.tls import TlsConfig
from kkdcpd.errors import ConfigError, ConfigProblem, SettingError
from kkdcpd.frozen import frozen
from kkdcpd.socket_address import is_interface

__all__ = ["LoadedConfig", "load_config", "read_admin", "read_config", "read_log_format", "read_process"]

Section = TypeVar("Section", AdminConfig, ProcessConfig)

_CONFIG = Table(form=Config)

_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")
_QUOTES_REMEDY = 'write texts in double quotes, as in level = "info"'
_SYNTAX_REMEDIES = {
    "Invalid value": _QUOTES_REMEDY,
    # `level = info` begins with TOML's infinity.
    "Expected newline or end of document after a statement": _QUOTES_REMEDY,
    "Cannot overwrite a value": "write each key only once",
    "Cannot mutate immutable namespace": "write it either as one value or as [[sections]], not as both",
    "Cannot declare": "write each [section] only once: put its settings below the header that is there",
}
_ANY_SYNTAX_REMEDY = (
    'write key = value, with texts in double quotes; sections look like [http] or [realms."NAME"]'
)


@frozen
class LoadedConfig:
    """A configuration that can be used, what its administrator should know, and the text it was read from.

    `dated` are the certificates and revocation lists that it names, the default certificate first.
    """

    config: Config
    dated: tuple[DatedItem, ...] = ()
    warnings: tuple[ConfigProblem, ...]
    text: str

    def expect_within_dates(self, now: datetime) -> None:
        """Check that all certificates and lists are within their dates. A start does not depend on this.

        Raises:
            ConfigError: some are not.
        """
        problems = [problem for item in self.dated if (problem := item.problem(now))]
        if problems:
            raise ConfigError(problems)


def load_config(path: Path, *, now: datetime, text: str | None = None) -> LoadedConfig:
    """Read the configuration, the krb5.conf, tokens and keys that it names, and inspect its certificates.

    With a `text` that was read before, only the files that it names are read again.

    Raises:
        ConfigError: it can't be used, for each of `problems`.
    """
    text = _read_text(path) if text is None else text
    config = _parsed(text, source=path)
    problems: list[ConfigProblem] = []
    warnings: list[ConfigProblem] = []
    dated: list[DatedItem] = []
    with collected(problems):
        config = _with_krb5_conf(config, warnings)
    if config.tls:
        config = replace(config, tls=_inspected(config.tls, now, problems, warnings, dated))
    config = replace(config, realms=tuple(_with_tokens(config.realms, problems, warnings)))
    config = replace(config, log=_with_key(config.log, problems, warnings))
    if problems:
        raise ConfigError(problems)
    config = _settled(config)
    return LoadedConfig(
        config=config,
        dated=tuple(dated),
        warnings=(*_warn_of_no_kpasswd(config), *_warn_of_no_interface(config), *warnings),
        text=text,
    )


def read_admin(path: Path) -> tuple[AdminConfig, tuple[ConfigProblem, ...]]:
    """Read [admin] alone, whatever is invalid elsewhere in the file.

    What can't be read is as if it weren't there; the problems say why.

    Raises:
        ConfigError: there is no such file, or it can't be read.
    """
    return _read_section(path, "admin", Table(form=AdminConfig))


def read_process(path: Path) -> tuple[ProcessConfig, tuple[ConfigProblem, ...]]:
    """Read [process] alone, as `read_admin` does.

    Raises:
        ConfigError: there is no such file, or it can't be read.
    """
    return _read_section(path, "process", Table(form=ProcessConfig))


def read_log_format(path: Path) -> str:
    """Read `log.format` alone, whatever is wrong elsewhere; "text" where it can't be read."""
    try:
        section = _document(_read_text(path), path).get("log", {})
        return Table(form=LogConfig).read({"format": section["format"]}, _root(path).setting("log")).format
    except (ConfigError, KeyError, TypeError):
        return LogConfig().format


def _read_section(path: Path, key: str, table: Table[Section]) -> tuple[Section, tuple[ConfigProblem, ...]]:
    text = _read_text(path)
    at = _root(path).setting(key)
    try:
        with homes_named(_CONFIG):
            return table.read(_document(text, path).get(key, {}), at), ()
    except ConfigError as error:
        return table.read({}, at), error.problems


def _root(source: Path) -> Location:
    """Return the location of the whole document."""
    return Location(directory=source.absolute().parent)


def read_config(text: str, *, source: Path) -> Config:
    """Read the text of a configuration; no file is opened, not even krb5.conf.

    Raises:
        ConfigError: it can't be used, for each of `problems`.
    """
    return _settled(_parsed(text, source=source))


def _parsed(text: str, *, source: Path) -> Config:
    """Return what is written: the discovery of a realm may still be "auto"."""
    document = _document(text, source)
    with _nested_in_reason(source), homes_named(_CONFIG):
        config = _CONFIG.read(document, _root(source))
    if not any(listener.tls for listener in config.listen):
        config = replace(config, tls=None)
    return _with_policies(config, document)


def _document(text: str, source: Path) -> dict[str, Any]:
    try:
        with _nested_in_reason(source):
            return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(str(error), text, source)]) from error
    except ValueError as error:
        # All that tomllib leaves to Python, which reads no number of more than 4300 digits.
        problem = "has a number of thousands of digits"
        remedy = "no setting takes such a number: compare with config.toml.example"
        raise ConfigError([ConfigProblem(key=str(source), problem=problem, remedy=remedy)]) from error


@contextmanager
def _nested_in_reason(source: Path) -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        remedy = "close the brackets, and write no more dots than config.toml.example has"
        problem = ConfigProblem(key=str(source), problem="nests lists or tables too deeply", remedy=remedy)
        raise ConfigError([problem]) from error


def _with_policies(config: Config, document: Mapping[str, Any]) -> Config:
    """Return the configuration with the whole policy of each realm: its own settings over [policy]."""
    table = Table(form=PolicyConfig)
    realms = tuple(
        replace(
            realm, policy=replace(config.policy, **table.read_values(written.get("policy", {}), Location()))
        )
        for realm, written in zip(config.realms, document["realms"].values(), strict=True)
    )
    return replace(config, realms=realms)


def _with_krb5_conf(config: Config, warnings: list[ConfigProblem]) -> Config:
    """Return the configuration with the lists of krb5.conf for the realms that have none."""
    path = config.locate.krb5_conf
    if path is None:
        return config
    relations = read_profile(path, _DISK, key="locate.krb5_conf")
    imported = import_realms(config.realms, relations)
    warnings += imported.warnings
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
        with _told_as_setting(path):
            if path.exists() and not path.is_file():
                raise SettingError(f"{path} is no regular file", "name a file")
            with path.open("rb") as file:
                contents = file.read(MAX_PROFILE_BYTES + 1)
        # Only its comments have anything but ASCII, in whatever encoding.
        return contents.decode(errors="replace")

    def names(self, directory: Path) -> tuple[str, ...]:
        with _told_as_setting(directory):
            return tuple(entry.name for entry in directory.iterdir() if entry.is_file())


_DISK = _Disk()


@contextmanager
def _told_as_setting(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        problem, remedy = f"there is no {path}", "put it there, or correct the path"
        raise SettingError(problem, remedy, is_temporary=True) from error
    except OSError as error:
        problem = f"{path} can't be read: {error.strerror}"
        raise SettingError(problem, remedy_of(error, path), is_temporary=is_temporary(error)) from error


def _settled(config: Config) -> Config:
    return replace(config, realms=tuple(map(_discovering, config.realms)))


def _discovering(realm: RealmConfig) -> RealmConfig:
    """Return the realm with its discovery decided."""
    if realm.discovery != "auto":
        return realm
    return replace(realm, discovery="none" if realm.kdc else "dns")


def _read_text(path: Path) -> str:
    """Read a configuration's file.

    Raises:
        ConfigError: it can't be read, or isn't UTF-8.
    """
    try:
        contents = read_bytes(path)
    except FileNotFoundError as error:
        remedy = "copy config.toml.example there and fill it in, or name another file with --config"
        # Nothing is configured: no restart cures that, as it may cure a file that a configuration names.
        problem = ConfigProblem(key=str(path), problem="there is no such file", remedy=remedy)
        raise ConfigError([problem]) from error
    except OSError as error:
        reason = f"can't be read: {error.strerror}"
        problem = ConfigProblem(
            key=str(path), problem=reason, remedy=remedy_of(error, path), is_temporary=is_temporary(error)
        )
        raise ConfigError([problem]) from error
    try:
        return contents.decode("utf-8-sig")  # Windows' editors put a byte order mark before UTF-8
    except UnicodeDecodeError as error:
        line = contents.count(b"\n", 0, error.start) + 1
        problem = ConfigProblem(
            key=f"{path}, line {line}", problem="is not UTF-8", remedy="save the file in UTF-8"
        )
        raise ConfigError([problem]) from error


def _syntax_problem(message: str, text: str, source: Path) -> ConfigProblem:
    position = _POSITION.search(message)
    line = position["line"] if position else None
    remedies = (remedy for start, remedy in _SYNTAX_REMEDIES.items() if message.startswith(start))
    return ConfigProblem(
        key=f"{source}, line {line or len(text.splitlines())}",
        problem=f"is not TOML: {_POSITION.sub('', message)}",
        remedy=next(remedies, _ANY_SYNTAX_REMEDY),
    )


def _inspected(
    tls: TlsConfig,
    now: datetime,
    problems: list[ConfigProblem],
    warnings: list[ConfigProblem],
    dated: list[DatedItem],
) -> TlsConfig:
    """Return `tls` with every server name known."""
    with collected(problems):
        facts = inspect_pair(tls.certificate, tls.key, section="tls", now=now)
        warnings += facts.warnings
        dated.append(facts.item)
    additional = []
    for position, pair in enumerate(tls.additional):
        section = f"tls.additional[{position}]"
        with collected(problems):
            facts = inspect_pair(pair.certificate, pair.key, section=section, now=now)
            warnings += facts.warnings
            dated.append(facts.item)
            names = pair.server_names or _server_names(facts.dns_names, section)
            additional.append(replace(pair, server_names=names))
    if tls.client_ca:
        with collected(problems):
            clients = inspect_client_ca(tls.client_ca, tls.client_crl, now=now)
            warnings += clients.warnings
            dated += clients.items
    return replace(tls, additional=tuple(additional))


def _with_tokens(
    realms: Iterable[RealmConfig], problems: list[ConfigProblem], warnings: list[ConfigProblem]
) -> Iterator[RealmConfig]:
    """Return the realms with the tokens that open them."""
    for realm in realms:
        tokens: tuple[bytes, ...] = ()
        if realm.tokens_file:
            with collected(problems):
                setting = join(join("realms", realm.name), "tokens_file")
                found = read_tokens(realm.tokens_file, setting=setting)
                tokens = found.digests
                warnings += found.warnings
        yield replace(realm, tokens=tokens)


def _with_key(log: LogConfig, problems: list[ConfigProblem], warnings: list[ConfigProblem]) -> LogConfig:
    """Return the log's settings with the key of hashed names."""
    if log.principals_key_file is None:
        return log
    with collected(problems):
        found = read_principals_key(log.principals_key_file, setting="log.principals_key_file")
        warnings += found.warnings
        return replace(log, principals_key=found.key)
    return log


def _server_names(dns_names: tuple[str, ...], section: str) -> tuple[str, ...]:
    if dns_names:
        return dns_names
    problem = "is missing, and the certificate bears no DNS name that clients can ask for"
    remedy = 'write the names it is for, such as ["kdc.example.com"]'
    raise ConfigError([ConfigProblem(key=f"{section}.server_names", problem=problem, remedy=remedy)])


def _warn_of_no_interface(config: Config) -> Iterator[ConfigProblem]:
    """Name the interfaces of link-local addresses that this host doesn't have at present."""
    for key, host in _hosts_of(config):
        zone = zone_of(host)
        if zone and not is_interface(zone):
            yield ConfigProblem(
                key=key,
                problem=f"{host} is on the network interface {zone}, which this host does not have",
                remedy="correct the zone after the %, or bring the interface up",
            )


def _hosts_of(config: Config) -> Iterator[tuple[str, str]]:
    """Return every host that the configuration names, with its setting."""
    for listen in config.listen:
        yield "listen.address", listen.address.host
    for nameserver in config.locate.nameservers:
        yield "locate.nameservers", nameserver.host
    for address in config.upstream.source_addresses:
        yield "upstream.source_addresses", address
    for realm in config.realms:
        for setting, endpoints in (("kdc", realm.kdc), ("kpasswd", realm.kpasswd)):
            for endpoint in endpoints:
                yield join(join("realms", realm.name), setting), endpoint.host


def _warn_of_no_kpasswd(config: Config) -> Iterator[ConfigProblem]:
    return (_no_kpasswd(realm) for realm in config.realms if realm.discovery == "none" and not realm.kpasswd)


def _no_kpasswd(realm: RealmConfig) -> ConfigProblem:
    if realm.source == SOURCE:
        # A list of our own would have krb5.conf left out for this realm.
        return ConfigProblem(
            key=join("realms", realm.name),
            problem="has no kpasswd_server in krb5.conf, so password changes are refused for this realm",
            remedy=f"add the servers that change passwords there: kpasswd_server = {realm.kdc[0].host}",
        )
    return ConfigProblem(
        key=join(join("realms", realm.name), "kpasswd"),
        problem="is missing, so password changes are refused for this realm",
        remedy=f'add the servers that change passwords, often the KDCs: kpasswd = ["{realm.kdc[0].host}"]',
    )
