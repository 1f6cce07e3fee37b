"""Runs Kerberos' client programs, with their own krb5.conf and credential cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.program import PATIENCE_SECONDS, Completed, environment, run

__all__ = ["KerberosClient", "RealmServers", "krb5_conf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmServers:
    """The servers of a realm for a client: https:// URLs of a proxy, or HOST:PORT."""

    kdc: tuple[str, ...]
    kpasswd: tuple[str, ...] = ()

    @classmethod
    def behind(cls, *proxy_urls: str) -> "RealmServers":
        """Return the same proxies for both services."""
        return cls(kdc=proxy_urls, kpasswd=proxy_urls)


class KerberosClient:
    """MIT's client programs. The first of `realms` is the default realm.

    Each client has its own folder, so that several clients can run at the same time. `http_anchors` is a PEM
    file with the trusted authorities; by default the client trusts the system's authorities.
    """

    def __init__(
        self,
        directory: Path,
        realms: Mapping[str, RealmServers],
        *,
        http_anchors: Path | None = None,
        libdefaults: Sequence[str] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.krb5_conf = directory / "krb5.conf"
        self.credential_cache = f"FILE:{directory / 'ccache'}"
        self.environment = environment(
            directory, KRB5_CONFIG=self.krb5_conf, KRB5CCNAME=self.credential_cache
        )
        self.krb5_conf.write_text(krb5_conf(realms, http_anchors, libdefaults))

    def kinit(
        self, principal: str, password: str, *options: str, timeout: float = PATIENCE_SECONDS
    ) -> Completed:
        """Log on."""
        return self.run("kinit", *options, principal, stdin=f"{password}\n", timeout=timeout)

    def kvno(self, service: str, *options: str, timeout: float = PATIENCE_SECONDS) -> Completed:
        """Get a ticket for a service."""
        return self.run("kvno", *options, service, timeout=timeout)

    def kpasswd(self, principal: str, old: str, new: str, *, timeout: float = PATIENCE_SECONDS) -> Completed:
        """Change a password."""
        return self.run("kpasswd", principal, stdin=f"{old}\n{new}\n{new}\n", timeout=timeout)

    def klist(self, *options: str) -> Completed:
        """List the tickets."""
        return self.run("klist", *options)

    def kdestroy(self) -> Completed:
        """Destroy the tickets."""
        return self.run("kdestroy")

    def run(self, *command: str, stdin: str = "", timeout: float = PATIENCE_SECONDS) -> Completed:
        """Run any program in this client's environment."""
        return run(*command, environment=self.environment, stdin=stdin, timeout=timeout)


def krb5_conf(
    realms: Mapping[str, RealmServers], http_anchors: Path | None = None, libdefaults: Sequence[str] = ()
) -> str:
    """Return the text of a krb5.conf that names the servers of realms."""
    lines = [
        "[libdefaults]",
        f"    default_realm = {next(iter(realms))}",
        "    dns_lookup_kdc = false",
        "    dns_lookup_realm = false",
        "    dns_canonicalize_hostname = false",
        *(f"    {line}" for line in libdefaults),
        "",
        "[realms]",
    ]
    for name, servers in realms.items():
        lines += [
            f"    {name} = {{",
            *(f"        kdc = {kdc}" for kdc in servers.kdc),
            *(f"        kpasswd_server = {kpasswd}" for kpasswd in servers.kpasswd),
            *([f"        http_anchors = FILE:{http_anchors}"] if http_anchors else []),
            "    }",
        ]
    return "\n".join(lines) + "\n"
