"""The advice for an unreadable file fits the environment, the user and the path."""

import grp
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.config import permissions
from kkdcpd.config.permissions import advice

OTHER_USER = 65534
USER, GROUP = "nobody", "nogroup"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Create a folder that each user can enter; only its owner can enter the folders of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def key(folder: Path) -> Path:
    path = folder / "tls" / "key.pem"
    path.parent.mkdir(mode=0o755)
    path.touch(mode=0o600)
    return path


@pytest.fixture(autouse=True)
def _plain_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INVOCATION_ID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(permissions, "CONTAINER_MARKS", ())
    monkeypatch.setattr(permissions, "KEY_GROUP", "no-such-group")


@pytest.fixture(autouse=True)
def _as_other_user(key: Path) -> Iterator[None]:
    """Run as another user until the test has removed the key."""
    del key
    group = os.getegid()
    os.setegid(grp.getgrnam(GROUP).gr_gid)
    os.seteuid(OTHER_USER)
    yield
    os.seteuid(0)
    os.setegid(group)


def test_plain_process_is_named_by_its_user(key: Path) -> None:
    assert (
        advice(key) == f"let {USER}, as which kkdcpd runs, read it: chgrp {GROUP} {key} && chmod 0640 {key}"
    )


def test_first_closed_folder_is_named(key: Path, folder: Path) -> None:
    os.seteuid(0)
    (folder / "tls").chmod(0o700)
    os.seteuid(OTHER_USER)
    closed = folder / "tls"
    assert advice(key) == (
        f"let {USER}, as which kkdcpd runs, enter {closed}: chgrp {GROUP} {closed} && chmod g+x {closed}"
    )


def test_target_of_a_link_counts(key: Path, folder: Path) -> None:
    os.seteuid(0)
    (folder / "tls").chmod(0o700)
    (folder / "link.pem").symlink_to(key)
    os.seteuid(OTHER_USER)
    assert f"enter {folder / 'tls'}" in advice(folder / "link.pem")


@pytest.mark.parametrize("is_kubernetes", [False, True])
def test_in_a_container_the_host_has_to_give_the_file(
    key: Path, monkeypatch: pytest.MonkeyPatch, is_kubernetes: bool
) -> None:
    if is_kubernetes:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    else:
        monkeypatch.setattr(permissions, "CONTAINER_MARKS", (key.parent,))
    assert advice(key) == (
        f"let user {OTHER_USER}, as which the container runs, read it: on the host, "
        f"chown {OTHER_USER} and chmod 0400 what is {key} in the container"
    )


def test_unit_has_a_group_for_keys(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "KEY_GROUP", GROUP)
    monkeypatch.setenv("INVOCATION_ID", "1")
    assert advice(key) == f"let the service's user read it: chgrp {GROUP} {key} && chmod 0640 {key}"


def test_group_alone_is_not_the_unit(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "KEY_GROUP", "daemon")
    assert "as which kkdcpd runs" in advice(key)


def test_user_without_a_name_is_a_number(key: Path) -> None:
    os.seteuid(0)
    os.setegid(54321)
    os.seteuid(54321)
    assert advice(key).startswith("let user 54321, as which kkdcpd runs, read it: chgrp 54321 ")
