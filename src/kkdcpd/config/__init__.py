"""The configuration: what may be set, how a TOML file is read, and everything that can be wrong with one.

`schema` declares the settings; `load_config` is the way in. Nothing below this package knows of it.
"""

from kkdcpd.config.addresses import ANY_HOST, EndpointSpec, ListenAddress
from kkdcpd.config.load import LoadedConfig, load_config, read_config
from kkdcpd.config.reader import Setting, settings_of
from kkdcpd.config.schema import (
    AdditionalCertificate,
    Config,
    HttpConfig,
    ListenConfig,
    LogConfig,
    RealmConfig,
    TlsConfig,
    UpstreamConfig,
)

__all__ = [
    "ANY_HOST",
    "AdditionalCertificate",
    "Config",
    "EndpointSpec",
    "HttpConfig",
    "ListenAddress",
    "ListenConfig",
    "LoadedConfig",
    "LogConfig",
    "RealmConfig",
    "Setting",
    "TlsConfig",
    "UpstreamConfig",
    "load_config",
    "read_config",
    "settings_of",
]
