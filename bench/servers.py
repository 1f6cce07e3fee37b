"""Starts kkdcpd, kdcproxy under gunicorn and Apache, as their users run them, and three reference servers.

All servers run on the system's Python, because mod_wsgi is built for it. `make bench` installs their packages
into .venv-bench. kkdcpd has its default settings: the guard works and each exchange writes a line.
"""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.bodies import REALM
from lab.authority import CertificateFiles
from lab.daemon import Daemon
from lab.ports import free_port
from lab.program import PATIENCE_SECONDS, Program, ProgramError

__all__ = ["PYTHON", "SERVERS", "SOURCES", "Place", "Server", "start_kkdcpd", "start_kkdcpd_for_long"]

ROOT = Path(__file__).parent.parent
PYTHON = str(ROOT / ".venv-bench" / "bin" / "python")
SOURCES = ROOT / "src"
CONSTANT_BYTES = 780
"""The length of the other servers' reply to an AS-REQ."""

APACHE_USER = "www-data"
_READY = re.compile(r" ready .*https://127\.0\.0\.1:(\d+)")
_MODULES = ("mpm_event", "authn_core", "authz_core", "access_compat", "ssl", "wsgi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The files of a server: its folder, its certificate, and its KDCs, all with one transport."""

    directory: Path
    pair: CertificateFiles
    way_out: str
    kdc_ports: tuple[int, ...]

    @property
    def kdcs(self) -> list[str]:
        """The KDCs' URLs."""
        return [f"{self.way_out}://127.0.0.1:{port}" for port in self.kdc_ports]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server: its parent process and its port."""

    pid: int
    port: int

    def send_signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.pid, number)


def start_kkdcpd(place: Place, stack: ExitStack, more: str = "", *, sources: Path = SOURCES) -> Server:
    """Start a kkdcpd from these sources with default settings and `more` settings."""
    config = _kkdcpd_config(place, more)
    daemon = stack.enter_context(Daemon(place.directory, config, python=PYTHON, sources=sources))
    return Server(pid=daemon.pid, port=daemon.ports[0])


def _kkdcpd_config(place: Place, more: str) -> str:
    return f"""
        [[listen]]
        address = "127.0.0.1:0"
        [tls]
        certificate = "{place.pair.certificate}"
        key = "{place.pair.key}"
        [realms."{REALM}"]
        kdc = {json.dumps(place.kdcs)}
        kpasswd = {json.dumps(place.kdcs)}
        {more}
        """


def start_kkdcpd_for_long(place: Place, stack: ExitStack, more: str) -> tuple[Server, Path, str]:
    """Start kkdcpd with a log file and a metrics URL; return all three."""
    place.directory.mkdir()
    config = place.directory / "config.toml"
    admin = free_port(["127.0.0.1"])
    more = f'[admin]\naddress = "127.0.0.1:{admin}"\n[process]\ncontrol = ""\n{more}'
    config.write_text(_kkdcpd_config(place, more))
    log = place.directory / "log"
    command = f'exec "{PYTHON}" -m kkdcpd --config "{config}" > "{log}"'
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    program = stack.enter_context(Program("kkdcpd", "sh", "-c", command, environment=environment))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := _READY.search(log.read_text() if log.exists() else "")):
        if time.monotonic() > deadline:
            raise ProgramError("kkdcpd isn't ready: " + "\n".join(program.lines) + log.read_text())
        time.sleep(0.05)
    return Server(pid=program.pid, port=int(found[1])), log, f"http://127.0.0.1:{admin}/metrics"


def _start_gunicorn(place: Place, stack: ExitStack) -> Server:
    port = free_port(["127.0.0.1"])
    command = (PYTHON, "-m", "gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}")
    tls = ("--certfile", str(place.pair.certificate), "--keyfile", str(place.pair.key))
    settings = {"KDCPROXY_CONFIG": str(_write_kdcproxy_config(place))}
    return _start("gunicorn", [*command, *tls, "kdcproxy:application"], port, stack, settings)


def _start_apache(place: Place, stack: ExitStack) -> Server:
    """Start Apache with the configuration of FreeIPA's ipa-kdc-proxy.conf."""
    port = free_port(["127.0.0.1"])
    folder = place.directory
    settings = {"KDCPROXY_CONFIG": str(_write_kdcproxy_config(place))}
    script = folder / "kdcproxy.wsgi"
    script.write_text("from kdcproxy import application\n")
    is_root = os.geteuid() == 0
    modules = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in _MODULES
    )
    config = folder / "apache.conf"
    config.write_text(f"""
        ServerRoot "{folder}"
        ServerName localhost
        PidFile "{folder}/apache.pid"
        {modules}
        {f"User {APACHE_USER}" if is_root else ""}
        {f"Group {APACHE_USER}" if is_root else ""}
        ErrorLog "{folder}/error.log"
        LogFormat "%h %l %u %t \\"%r\\" %>s %b" common
        CustomLog "{folder}/access.log" common
        Listen 127.0.0.1:{port}
        KeepAlive On
        MaxKeepAliveRequests 1000
        WSGISocketPrefix "{folder}/wsgi"
        WSGIDaemonProcess kdcproxy processes=2 threads=15 maximum-requests=5000 python-home={ROOT}/.venv-bench
        WSGIImportScript {script} process-group=kdcproxy application-group=kdcproxy
        WSGIScriptAlias /KdcProxy {script}
        WSGIScriptReloading Off
        <Location "/KdcProxy">
            Satisfy Any
            Order Deny,Allow
            Allow from all
            WSGIProcessGroup kdcproxy
            WSGIApplicationGroup kdcproxy
            LimitRequestBody 100000
        </Location>
        SSLEngine on
        SSLCertificateFile "{place.pair.certificate}"
        SSLCertificateKeyFile "{place.pair.key}"
        """)
    return _start("apache", ["apache2", "-D", "FOREGROUND", "-f", str(config)], port, stack, settings)


def _write_kdcproxy_config(place: Place) -> Path:
    path = place.directory / "kdcproxy.conf"
    server = place.kdcs[0]
    path.write_text(f"""\
[global]
use_dns = false
[{REALM}]
kerberos = kerberos+{server}
kpasswd = kpasswd+{server}
""")
    return path


def _start_nginx(place: Place, stack: ExitStack) -> Server:
    port = free_port(["127.0.0.1"])
    folder = place.directory
    config = folder / "nginx.conf"
    config.write_text(f"""
        daemon off;
        worker_processes 1;
        pid {folder}/nginx.pid;
        error_log {folder}/error.log;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi;
            default_type application/kerberos;
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {place.pair.certificate};
                ssl_certificate_key {place.pair.key};
                ssl_protocols TLSv1.2 TLSv1.3;
                location / {{ return 200 "{"x" * CONSTANT_BYTES}"; }}
            }}
        }}
        """)
    return _start("nginx", ["nginx", "-e", f"{folder}/error.log", "-c", str(config)], port, stack)


def _start_aiohttp(place: Place, stack: ExitStack) -> Server:
    return _start_bare("constant", CONSTANT_BYTES, place, stack)


def _start_relay(place: Place, stack: ExitStack) -> Server:
    return _start_bare("relay", place.kdc_ports[0], place, stack)


def _start_bare(name: str, number: int, place: Place, stack: ExitStack) -> Server:
    port = free_port(["127.0.0.1"])
    tls = (str(place.pair.certificate), str(place.pair.key))
    command = [PYTHON, "-m", f"bench.{name}", str(port), *tls, str(number)]
    return _start(name, command, port, stack, {"PYTHONPATH": f"{ROOT}:{SOURCES}"})


SERVERS: Mapping[str, Callable[[Place, ExitStack], Server]] = {
    "kkdcpd": start_kkdcpd,
    "kdcproxy, gunicorn sync": _start_gunicorn,
    "kdcproxy, Apache mod_wsgi": _start_apache,
    "a bare relay, UDP": _start_relay,
    "nginx, a constant": _start_nginx,
    "bare aiohttp on uvloop, a constant": _start_aiohttp,
}


def _start(
    name: str, command: Sequence[str], port: int, stack: ExitStack, settings: Mapping[str, str] | None = None
) -> Server:
    program = Program(name, *command, environment={**os.environ, **(settings or {})})
    stack.enter_context(program)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _takes_connections(port):
        if time.monotonic() > deadline:
            output = "\n".join(program.lines)
            raise ProgramError(f"{name} takes no connections:\n{output}")
        time.sleep(0.05)
    return Server(pid=program.pid, port=port)


def _takes_connections(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
