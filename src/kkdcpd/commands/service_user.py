"""Finds the user that the service runs as, and lets `check` read files as this user.

Root can read every file, so a check by root does not show whether the service can read the files. systemd
knows the user of the unit. While the unit runs, its process shows the user, because a user of DynamicUser=
has a number only then. Without systemd, the user is `kkdcpd`, if this user or the group of the unit exists.
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
"""This folder exists if systemd is the init process (sd_booted(3))."""

PATIENCE_SECONDS = 10.0

DYNAMIC_ID = 65519
"""The last user number that systemd gives to running units (DynamicUser=). This user owns no file."""


_Result = TypeVar("_Result")


class UnknownUserError(Exception):
    """The user or group does not exist."""


@frozen
class Identity:
    """The user and the groups of a process. `text` names the user in messages."""

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
        UnknownUserError: the user does not exist.
    """
    return _identity(name, text=name)


def service_identity() -> Identity | None:
    """Return the identity of the user of the service, or None if the user is unknown.

    Raises:
        UnknownUserError: the unit's user or one of its groups does not exist.
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
    # Python loads modules and codecs at their first use. Another user may not be allowed to read them.
    with contextlib.suppress(ConfigError):
        load()
    with acting_as(identity):
        return load()


@contextlib.contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Act as another user, which only root can. The kernel then checks ACLs and folders too."""
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
    """Return the properties of the unit from systemd, or none if systemd does not run."""
    if not BOOTED.is_dir():
        return {}
    properties = "--property=LoadState,MainPID,User,Group,DynamicUser,SupplementaryGroups"
    try:
        shown = subprocess.run(  # noqa: S603 - all arguments are constants
            ["systemctl", "show", properties, UNIT],  # noqa: S607 - its folder differs between systems
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)


def _identity_of_unit(unit: Mapping[str, str]) -> Identity:
    name = unit["User"] or "root"
    text = f"{name}, the user of {UNIT}"
    running = _identity_of_process(unit["MainPID"], text) if unit["MainPID"] != "0" else None
    extra = tuple(unit["SupplementaryGroups"].split())
    is_dynamic = unit["DynamicUser"] == "yes"
    return running or _identity(name, unit["Group"], extra, text=text, is_dynamic=is_dynamic)


def _identity_without_unit() -> Identity | None:
    key_group = _existing(
        KEY_GROUP
    )  # the group belongs to the unit; its user exists only while the unit runs
    with contextlib.suppress(UnknownUserError):
        return _identity(USER, extra=key_group, text=USER, is_dynamic=bool(key_group))
    return None


def _identity_of_process(number: str, text: str) -> Identity | None:
    """Return the identity of a running process, or None if the process has ended."""
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
