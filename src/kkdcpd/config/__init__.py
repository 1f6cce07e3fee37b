"""The configuration: its settings, and the reader of its TOML file, which finds all problems.

`schema` declares the settings; `load_config` is the way in. Nothing below this package knows of it.
"""

from kkdcpd.config.addresses import ANY_HOST, EndpointSpec, ListenAddress, Nameserver, Network
from kkdcpd.config.dates import DatedItem, DatedKind, newly_outside_dates
from kkdcpd.config.https_files import load_authorities, load_certificate
from kkdcpd.config.load import (
    LoadedConfig,
    load_config,
    read_admin,
    read_config,
    read_log_format,
    read_process,
)
from kkdcpd.config.patterns import CertificatePattern, PrincipalPattern
from kkdcpd.config.permissions import KEY_GROUP
from kkdcpd.config.reader import Setting, settings_of
from kkdcpd.config.schema import Config
from kkdcpd.config.sections.admin import AdminConfig
from kkdcpd.config.sections.connections import ConnectionsConfig, ForwardedHeader
from kkdcpd.config.sections.guard import FailuresConfig, GuardConfig, RatesConfig, RefusalForm
from kkdcpd.config.sections.http import HttpConfig
from kkdcpd.config.sections.https import HttpsConfig
from kkdcpd.config.sections.listen import ClientCertificates, ListenConfig
from kkdcpd.config.sections.locate import LocateConfig
from kkdcpd.config.sections.log import LogConfig, LogLevels
from kkdcpd.config.sections.policy import PolicyConfig
from kkdcpd.config.sections.process import ProcessConfig
from kkdcpd.config.sections.realms import Discovery, RealmConfig
from kkdcpd.config.sections.tls import AdditionalCertificate, TlsConfig
from kkdcpd.config.sections.tunnel import TunnelConfig
from kkdcpd.config.sections.upstream import UpstreamConfig
from kkdcpd.config.system import SystemFiles
from kkdcpd.config.texts import PinnedKey

__all__ = [
    "ANY_HOST",
    "KEY_GROUP",
    "AdditionalCertificate",
    "AdminConfig",
    "CertificatePattern",
    "ClientCertificates",
    "Config",
    "ConnectionsConfig",
    "DatedItem",
    "DatedKind",
    "Discovery",
    "EndpointSpec",
    "FailuresConfig",
    "ForwardedHeader",
    "GuardConfig",
    "HttpConfig",
    "HttpsConfig",
    "ListenAddress",
    "ListenConfig",
    "LoadedConfig",
    "LocateConfig",
    "LogConfig",
    "LogLevels",
    "Nameserver",
    "Network",
    "PinnedKey",
    "PolicyConfig",
    "PrincipalPattern",
    "ProcessConfig",
    "RatesConfig",
    "RealmConfig",
    "RefusalForm",
    "Setting",
    "SystemFiles",
    "TlsConfig",
    "TunnelConfig",
    "UpstreamConfig",
    "load_authorities",
    "load_certificate",
    "load_config",
    "newly_outside_dates",
    "read_admin",
    "read_config",
    "read_log_format",
    "read_process",
    "settings_of",
]
