"""Reads a configuration file and the files that it names, or finds all problems in them.

The files are read only if the text has no problem.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from kkdcpd.config.dates import DatedItem
from kkdcpd.config.document import parse_document, read_text, refuse_deep_nesting
from kkdcpd.config.hints import find_hints
from kkdcpd.config.homes import homes_named
from kkdcpd.config.named_files import Findings, read_named_files
from kkdcpd.config.problems import Location
from kkdcpd.config.reader import Table
from kkdcpd.config.schema import Config
from kkdcpd.config.sections.admin import AdminConfig
from kkdcpd.config.sections.log import LogConfig
from kkdcpd.config.sections.policy import PolicyConfig
from kkdcpd.config.sections.process import ProcessConfig
from kkdcpd.config.sections.realms import RealmConfig
from kkdcpd.errors import ConfigError, ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["LoadedConfig", "load_config", "read_admin", "read_config", "read_log_format", "read_process"]

Section = TypeVar("Section", AdminConfig, ProcessConfig)

_CONFIG = Table(form=Config)


@frozen
class LoadedConfig:
    """A usable configuration, the warnings about it, and its text.

    `dated` are its certificates and revocation lists. The default certificate is the first.
    """

    config: Config
    dated: tuple[DatedItem, ...] = ()
    warnings: tuple[ConfigProblem, ...]
    text: str

    def expect_within_dates(self, now: datetime) -> None:
        """Check that all certificates and lists are within their dates. A start does not depend on this.

        Raises:
            ConfigError: a certificate or list is outside its dates.
        """
        problems = [problem for item in self.dated if (problem := item.problem(now))]
        if problems:
            raise ConfigError(problems)


def load_config(path: Path, *, now: datetime, text: str | None = None) -> LoadedConfig:
    """Read the configuration, and the files that it names: krb5.conf, certificates, tokens and keys.

    With a `text` that was read before, only the named files are read.

    Raises:
        ConfigError: the configuration is not usable, because of its `problems`.
    """
    text = read_text(path) if text is None else text
    findings = Findings()
    config = _settled(read_named_files(_parsed(text, source=path), findings, now=now))
    if findings.problems:
        raise ConfigError(findings.problems)
    return LoadedConfig(
        config=config,
        dated=tuple(findings.dated),
        warnings=(*find_hints(config), *findings.warnings),
        text=text,
    )


def read_admin(path: Path) -> tuple[AdminConfig, tuple[ConfigProblem, ...]]:
    """Read [admin] alone. Problems of other sections have no effect.

    If [admin] has problems, return its defaults and the problems.

    Raises:
        ConfigError: the file cannot be read.
    """
    return _read_section(path, "admin", Table(form=AdminConfig))


def read_process(path: Path) -> tuple[ProcessConfig, tuple[ConfigProblem, ...]]:
    """Read [process] alone, as `read_admin` does.

    Raises:
        ConfigError: the file cannot be read.
    """
    return _read_section(path, "process", Table(form=ProcessConfig))


def read_log_format(path: Path) -> str:
    """Read `log.format` alone. Problems have no effect; if the setting cannot be read, return the default."""
    try:
        section = parse_document(read_text(path), path).get("log", {})
        return Table(form=LogConfig).read({"format": section["format"]}, _root(path).setting("log")).format
    except (ConfigError, KeyError, TypeError):
        return LogConfig().format


def _read_section(path: Path, key: str, table: Table[Section]) -> tuple[Section, tuple[ConfigProblem, ...]]:
    text = read_text(path)
    at = _root(path).setting(key)
    try:
        with homes_named(_CONFIG):
            return table.read(parse_document(text, path).get(key, {}), at), ()
    except ConfigError as error:
        return table.read({}, at), error.problems


def _root(source: Path) -> Location:
    """Return the location of the whole document."""
    return Location(directory=source.absolute().parent)


def read_config(text: str, *, source: Path) -> Config:
    """Read the text of a configuration, without the files that it names.

    Raises:
        ConfigError: the configuration is not usable, because of its `problems`.
    """
    return _settled(_parsed(text, source=source))


def _parsed(text: str, *, source: Path) -> Config:
    """Return the configuration as the text has it: the discovery of a realm may be "auto"."""
    document = parse_document(text, source)
    with refuse_deep_nesting(source), homes_named(_CONFIG):
        config = _CONFIG.read(document, _root(source))
    if not any(listener.tls for listener in config.listen):
        config = replace(config, tls=None)
    return _with_policies(config, document)


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


def _settled(config: Config) -> Config:
    return replace(config, realms=tuple(map(_with_discovery, config.realms)))


def _with_discovery(realm: RealmConfig) -> RealmConfig:
    """Return the realm with its "auto" decided."""
    if realm.discovery != "auto":
        return realm
    return replace(realm, discovery="none" if realm.kdc else "dns")
