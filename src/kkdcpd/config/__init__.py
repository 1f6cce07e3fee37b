"""The configuration: what may be set, how a TOML file is read, and everything that can be wrong with one.

`schema` declares the settings; `load_config` is the way in. Nothing below this package knows of it.
"""

from kkdcpd.config.addresses import ANY_HOST, EndpointSpec, ListenAddress, Nameserver, Network
from kkdcpd.config.admin import AdminConfig
from kkdcpd.config.dates import DatedItem, DatedKind, newly_outside_dates
from kkdcpd.config.guard import (
    ConnectionsConfig,
    FailuresConfig,
    ForwardedHeader,
    GuardConfig,
    PolicyConfig,
    RatesConfig,
    RefusalForm,
)
from kkdcpd.config.load import (
    LoadedConfig,
    load_config,
    read_admin,
    read_config,
    read_log_format,
    read_process,
)
from kkdcpd.config.log import LogConfig, LogLevels
from kkdcpd.config.patterns import CertificatePattern, PrincipalPattern
from kkdcpd.config.permissions import KEY_GROUP
from kkdcpd.config.process import ProcessConfig
from kkdcpd.config.reader import Setting, settings_of
from kkdcpd.config.schema import (
    AdditionalCertificate,
    ClientCertificates,
    Config,
    Discovery,
    HttpConfig,
    ListenConfig,
    LocateConfig,
    RealmConfig,
    TlsConfig,
    UpstreamConfig,
)
from kkdcpd.config.system import SystemFiles

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
    "ListenAddress",
    "ListenConfig",
    "LoadedConfig",
    "LocateConfig",
    "LogConfig",
    "LogLevels",
    "Nameserver",
    "Network",
    "PolicyConfig",
    "PrincipalPattern",
    "ProcessConfig",
    "RatesConfig",
    "RealmConfig",
    "RefusalForm",
    "Setting",
    "SystemFiles",
    "TlsConfig",
    "UpstreamConfig",
    "load_config",
    "newly_outside_dates",
    "read_admin",
    "read_config",
    "read_log_format",
    "read_process",
    "settings_of",
]
