import datetime
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.config import LoadedConfig, load_config
from kkdcpd.supervisor.listeners import make_listeners
from lab.authority import Authority

CONFIG = """
[[listen]]
address = "127.0.0.1:0"
[[listen]]
address = "[::1]:0"
[[listen]]
address = "unix:{path}"
tls = false
[tls]
certificate = "{pair.certificate}"
key = "{pair.key}"
[realms."EXAMPLE.COM"]
kdc = ["kdc.example.com"]
[admin]
address = "127.0.0.1:0"
"""


@pytest.fixture
def loaded(tmp_path: Path, authority: Authority) -> LoadedConfig:
    pair = authority.issue("localhost", file_name="listeners")
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(path=tmp_path / "http.sock", pair=pair))
    return load_config(path, now=datetime.datetime.now(datetime.UTC))


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[list[list[socket.socket]]]:
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_INET)
    four, six, unix, admin = (socket.socket(family) for family in families)
    four.bind(("127.0.0.1", 0))
    six.bind(("::1", 0))
    unix.bind(str(tmp_path / "http.sock"))
    admin.bind(("127.0.0.1", 0))
    yield [[four], [six], [unix], [admin]]
    for sock in (four, six, unix, admin):
        sock.close()


def test_each_role_has_the_sockets_of_its_addresses(
    loaded: LoadedConfig, sockets: list[list[socket.socket]], tmp_path: Path
) -> None:
    listeners = make_listeners(loaded.config, sockets)
    first, second, third = listeners["worker"]
    (admin,) = listeners["admin"]
    assert [listener.socket for listener in (first, second, third, admin)] == [
        sock for opened in sockets for sock in opened
    ]
    assert first.url == f"https://127.0.0.1:{first.socket.getsockname()[1]}"
    assert second.url == f"https://[::1]:{second.socket.getsockname()[1]}"
    assert third.url == f"http+unix:{tmp_path}/http.sock"
    assert third.tls_context is None
    assert admin.url == f"http://127.0.0.1:{admin.socket.getsockname()[1]}"


def test_listeners_with_the_same_settings_share_one_tls_context(
    loaded: LoadedConfig, sockets: list[list[socket.socket]]
) -> None:
    """So TLS sessions resume at any of these listeners."""
    first, second, _third = make_listeners(loaded.config, sockets)["worker"]
    assert isinstance(first.tls_context, ssl.SSLContext)
    assert first.tls_context is second.tls_context
