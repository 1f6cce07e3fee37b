"""Advises how to make a file readable for the service, in a container, under systemd, or as a plain process.

The advice is about the first folder of the path that the service cannot enter, or else about the file.
"""

import contextlib
import grp
import os
import pwd
from pathlib import Path

__all__ = ["KEY_GROUP", "advice"]

KEY_GROUP = "kkdcpd-tls"
"""The group that systemd's unit has for keys and tokens (systemd/sysusers.d)."""

CONTAINER_MARKS = (Path("/run/.containerenv"), Path("/.dockerenv"))
"""Podman and Docker create these files in each container. Kubernetes sets a variable."""


def advice(path: Path) -> str:
    """Return the remedy for a file that the process may not read."""
    folder = _closed_folder(path)
    subject, mode = (folder, "g+x") if folder else (path, "0640")
    action = f"enter {folder}" if folder else "read it"
    if _has_key_group():
        return f"let the service's user {action}: chgrp {KEY_GROUP} {subject} && chmod {mode} {subject}"
    if _is_container():
        mode = "u+x" if folder else "0400"
        return (
            f"let user {os.geteuid()}, as which the container runs, {action}: on the host, "
            f"chown {os.geteuid()} and chmod {mode} what is {subject} in the container"
        )
    group = _name_of_group(os.getegid())
    return (
        f"let {_name_of_user(os.geteuid())}, as which kkdcpd runs, {action}: "
        f"chgrp {group} {subject} && chmod {mode} {subject}"
    )


def _closed_folder(path: Path) -> Path | None:
    """Return the first folder of the path that the process cannot enter."""
    folders = reversed(Path(os.path.realpath(path)).parents)
    return next((folder for folder in folders if _is_closed(folder)), None)


def _is_closed(folder: Path) -> bool:
    try:
        # stat of the folder's own entry: access(2) checks the real user, and Path removes "/.".
        os.stat(f"{folder}/.")  # noqa: PTH116
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _has_key_group() -> bool:
    """Whether the process belongs to the unit. In the unit's user namespace the group may have no number."""
    with contextlib.suppress(KeyError):
        return grp.getgrnam(KEY_GROUP).gr_gid in os.getgroups() or "INVOCATION_ID" in os.environ
    return False


def _is_container() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(mark.exists() for mark in CONTAINER_MARKS)


def _name_of_user(number: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return f"user {number}"


def _name_of_group(number: int) -> str:
    with contextlib.suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)
