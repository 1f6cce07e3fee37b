"""Finds the user that the service runs as, and lets `check` read files as this user.

Root reads everything, so a file that root finds good may be closed to the service. systemd knows the user of
the unit: that of its process while it runs, for a user of DynamicUser= has a number only then. Where systemd
can't be asked it is the user `kkdcpd`, if there is one or the unit's group exists.
"""

import contextlib
import grp
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from kkdcpd.config import KEY_GROUP
from kkdcpd.errors import ConfigError
from kkdcpd.frozen import frozen

__all__ = [
    "Identity",
    "UnknownUserError",
    "acting_as",
    "call_as",
    "current_identity",
    "identity_of",
    "service_identity",
]

UNIT = "kkdcpd.service"
USER = "kkdcpd"

BOOTED = Path("/run/systemd/system")
"""This folder is there where systemd is the init process (sd_booted(3))."""

PATIENCE_SECONDS = 10.0

DYNAMIC_ID = 65519
"""The last user number that systemd gives to units while they run (DynamicUser=): it owns no file."""


_Result = TypeVar("_Result")


class UnknownUserError(Exception):
    """There is no such user or group."""


@frozen
class Identity:
    """A user as the kernel sees it; `text` names it for people."""

    text: str
    user: int
    group: int
    groups: tuple[int, ...]


def current_identity() -> Identity:
    """Return the identity of this process."""
    user = os.geteuid()
    name = next((entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == user), f"user {user}")
    return Identity(text=name, user=user, group=os.getegid(), groups=tuple(os.getgroups()))


def identity_of(name: str) -> Identity:
    """Return the identity of a user by name or number, with all groups.

    Raises:
        UnknownUserError: there is none.
    """
    return _identity(name, text=name)


def service_identity() -> Identity | None:
    """Return the identity of the service's user; None if nothing tells it.

    Raises:
        UnknownUserError: the unit's user or one of its groups doesn't exist.
    """
    unit = _unit()
    return _identity_of_unit(unit) if unit.get("LoadState") == "loaded" else _identity_without_unit()


def call_as(identity: Identity, load: Callable[[], _Result]) -> _Result:
    """Load the configuration with the rights of the identity.

    Raises:
        ConfigError: as `load` does.
    """
    if identity == current_identity():
        return load()
    # Python reads modules and codecs of its own when it first needs them, which another user may not.
    with contextlib.suppress(ConfigError):
        load()
    with acting_as(identity):
        return load()


@contextlib.contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Read files as another user does; only root can. The kernel decides, so ACLs and folders count."""
    before = current_identity()
    os.setgroups(identity.groups)
    os.setegid(identity.group)
    os.seteuid(identity.user)
    try:
        yield
    finally:
        os.seteuid(before.user)
        os.setegid(before.group)
        os.setgroups(before.groups)


def _unit() -> Mapping[str, str]:
    """Ask systemd for the unit's properties; none where systemd doesn't run."""
    if not BOOTED.is_dir():
        return {}
    properties = "--property=LoadState,MainPID,User,Group,DynamicUser,SupplementaryGroups"
    try:
        told = subprocess.run(  # noqa: S603 - nothing of it comes from elsewhere
            ["systemctl", "show", properties, UNIT],  # noqa: S607 - the system's own, wherever it is
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)


def _identity_of_unit(unit: Mapping[str, str]) -> Identity:
    name = unit["User"] or "root"
    text = f"{name}, the user of {UNIT}"
    running = _identity_of_process(unit["MainPID"], text) if unit["MainPID"] != "0" else None
    extra = tuple(unit["SupplementaryGroups"].split())
    is_dynamic = unit["DynamicUser"] == "yes"
    return running or _identity(name, unit["Group"], extra, text=text, is_dynamic=is_dynamic)


def _identity_without_unit() -> Identity | None:
    key_group = _existing(KEY_GROUP)  # it comes with the unit, whose user exists only while it runs
    with contextlib.suppress(UnknownUserError):
        return _identity(USER, extra=key_group, text=USER, is_dynamic=bool(key_group))
    return None


def _identity_of_process(number: str, text: str) -> Identity | None:
    """Return the identity that a running process has; None if it has ended."""
    try:
        status = Path(f"/proc/{number}/status").read_text()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines())
    effective_user, effective_group = (int(fields[name].split()[1]) for name in ("Uid", "Gid"))
    groups = tuple(map(int, fields["Groups"].split()))
    return Identity(text=text, user=effective_user, group=effective_group, groups=groups)


def _identity(
    name: str, group: str = "", extra: tuple[str, ...] = (), *, text: str, is_dynamic: bool = False
) -> Identity:
    entry = _user(name)
    if entry is None and not is_dynamic:
        raise UnknownUserError(f"there is no user {name}")
    user, own_group = (entry.pw_uid, entry.pw_gid) if entry else (DYNAMIC_ID, DYNAMIC_ID)
    first = _group(group) if group and (entry or group != name) else own_group
    groups = os.getgrouplist(entry.pw_name, first) if entry else [first]
    more = {*groups, *map(_group, extra)}
    return Identity(text=text, user=user, group=first, groups=tuple(sorted(more)))


def _user(name: str) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    return None


def _group(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise UnknownUserError(f"there is no group {name}") from None


def _existing(group: str) -> tuple[str, ...]:
    with contextlib.suppress(KeyError):
        return (grp.getgrnam(group).gr_name,)
    return ()
