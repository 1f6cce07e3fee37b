"""`check`, run by root, reads files as the service's user does."""

import grp
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.cli import ExitCode, main
from kkdcpd.commands import service_user
from kkdcpd.commands.service_user import Identity, UnknownUserError, acting_as, current_identity, identity_of
from kkdcpd.config import permissions
from lab.authority import Authority
from lab.program import run

USER, GROUP = "nobody", "daemon"
SYSTEMCTL = """#!/bin/sh
echo "LoadState={load}"
echo "MainPID={pid}"
echo "User={user}"
echo "Group="
echo "DynamicUser={dynamic}"
echo "SupplementaryGroups={groups}"
"""


@pytest.fixture(autouse=True)
def _no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice is as outside of a container, wherever the tests run."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(permissions, "CONTAINER_MARKS", ())


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def files(folder: Path, authority: Authority) -> dict[str, Path]:
    """Each file that a configuration names, readable by all."""
    pair = authority.issue("localhost", file_name="readable")
    contents = {
        "tls.certificate": pair.certificate.read_bytes(),
        "tls.key": pair.key.read_bytes(),
        "tls.client_ca": authority.certificate.read_bytes(),
        "tokens_file": b"0123456789abcdef0123456789abcdef\n",
        "principals_key_file": b"0123456789abcdef0123456789abcdef",
        "krb5_conf": b"[libdefaults]\n",
    }
    paths = {name: folder / name / "file" for name in contents}
    for name, path in paths.items():
        path.parent.mkdir(mode=0o755)
        path.write_bytes(contents[name])
        path.chmod(0o644)
    return paths


@pytest.fixture
def config(folder: Path, files: dict[str, Path]) -> Path:
    path = folder / "config.toml"
    path.write_text(
        f"""
        [[listen]]
        address = "127.0.0.1:0"
        client_certificates = "optional"
        [tls]
        certificate = "{files["tls.certificate"]}"
        key = "{files["tls.key"]}"
        client_ca = "{files["tls.client_ca"]}"
        [locate]
        krb5_conf = "{files["krb5_conf"]}"
        [log]
        principals_key_file = "{files["principals_key_file"]}"
        [realms."EXAMPLE.COM"]
        kdc = ["kdc.example.com"]
        kpasswd = ["kdc.example.com"]
        tokens_file = "{files["tokens_file"]}"
        """
    )
    path.chmod(0o644)
    return path


def _check(config: Path, user: str = USER) -> int:
    return main(["check", "--config", str(config), "--user", user])


def test_files_that_the_user_can_read_are_good(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _check(config) == ExitCode.OK
    assert capsys.readouterr().out.endswith(f"the files were read as {USER}\n")
    assert os.geteuid() == 0


@pytest.mark.parametrize(
    "name",
    ["tls.certificate", "tls.key", "tls.client_ca", "tokens_file", "principals_key_file", "krb5_conf"],
)
@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
def test_each_file_and_folder_must_be_open_to_the_user(
    config: Path, files: dict[str, Path], name: str, is_folder: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = files[name].parent if is_folder else files[name]
    closed.chmod(0o700)
    assert _check(config, "root") == ExitCode.OK
    capsys.readouterr()
    assert _check(config) == ExitCode.CONFIG
    errors = capsys.readouterr().err
    assert f"{files[name]} can't be read: Permission denied" in errors
    assert f"chmod {'g+x' if is_folder else '0640'} {closed}" in errors
    assert f"the files were read as {USER}" in errors
    assert os.geteuid() == 0


def test_configuration_itself_must_be_open_to_the_user(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.chmod(0o600)
    assert _check(config) == ExitCode.CONFIG
    assert f"{config}: can't be read: Permission denied" in capsys.readouterr().err


def test_group_of_the_user_opens_a_file(folder: Path) -> None:
    path = folder / "key.pem"
    path.touch(mode=0o640)
    group = grp.getgrnam(GROUP).gr_gid
    os.chown(path, 0, group)
    alone = identity_of(USER)
    with acting_as(alone), pytest.raises(PermissionError):
        path.read_bytes()
    with acting_as(Identity(text=USER, user=alone.user, group=alone.group, groups=(group,))):
        assert path.read_bytes() == b""
    assert current_identity().user == 0


def test_unknown_user_is_a_usage_error(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _check(config, "no-such-user")
    assert ended.value.code == ExitCode.USAGE
    assert "there is no user no-such-user; name the user" in capsys.readouterr().err


def test_only_root_can_read_as_another_user(config: Path) -> None:
    code = (
        "import locale, os; from kkdcpd.cli import main\n"
        f"main(['check', '--config', {str(config)!r}])\n"  # root loads Python's own files before
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"main(['check', '--config', {str(config)!r}, '--user', 'daemon'])"
    )
    done = run(sys.executable, "-c", code, environment=os.environ)
    assert done.exit_code == ExitCode.USAGE
    assert "only root can read files as another user" in done.output


@pytest.fixture
def systemctl(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake systemctl. tests/deploy has a real systemd."""
    monkeypatch.setattr(service_user, "BOOTED", folder)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "systemctl"


def _say(
    systemctl: Path, load: str = "loaded", user: str = "", dynamic: str = "no", groups: str = "", pid: int = 0
) -> None:
    text = SYSTEMCTL.format(load=load, user=user, dynamic=dynamic, groups=groups, pid=pid)
    systemctl.write_text(text)
    systemctl.chmod(systemctl.stat().st_mode | stat.S_IXUSR)


def test_user_of_the_unit_is_the_user_of_the_service(systemctl: Path) -> None:
    _say(systemctl, user=USER, groups=f"{GROUP} bin")
    identity = service_user.service_identity()
    assert identity
    assert identity.text == f"{USER}, the user of kkdcpd.service"
    assert identity.user == identity_of(USER).user
    assert {grp.getgrnam(name).gr_gid for name in (GROUP, "bin")} <= set(identity.groups)


def test_process_of_the_running_unit_shows_the_user(systemctl: Path) -> None:
    with subprocess.Popen(["sleep", "60"], user=54321, group=54322, extra_groups=[54323]) as process:
        _say(systemctl, user="kkdcpd", dynamic="yes", pid=process.pid)
        identity = service_user.service_identity()
        process.kill()
    assert identity
    assert (identity.user, identity.group, identity.groups) == (54321, 54322, (54323,))


def test_ended_process_shows_no_user(systemctl: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    _say(systemctl, user=USER, pid=process.pid)
    identity = service_user.service_identity()
    assert identity
    assert identity.user == identity_of(USER).user


def test_dynamic_user_is_checked_as_a_user_that_owns_no_file(systemctl: Path) -> None:
    _say(systemctl, user="kkdcpd", dynamic="yes", groups=GROUP)
    identity = service_user.service_identity()
    assert identity
    assert identity.user == service_user.DYNAMIC_ID
    assert set(identity.groups) == {service_user.DYNAMIC_ID, grp.getgrnam(GROUP).gr_gid}


def test_unit_without_a_user_runs_as_root(systemctl: Path) -> None:
    _say(systemctl)
    identity = service_user.service_identity()
    assert identity
    assert identity.user == 0


@pytest.mark.parametrize("wrong", [{"user": "no-such-user"}, {"user": USER, "groups": "no-such-group"}])
def test_missing_user_or_group_of_the_unit_is_reported(systemctl: Path, wrong: dict[str, Any]) -> None:
    _say(systemctl, **wrong)
    with pytest.raises(UnknownUserError, match="no-such"):
        service_user.service_identity()


def test_without_unit_and_user_root_stays_root(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _say(systemctl, load="not-found")
    monkeypatch.setattr(service_user, "USER", "no-such-user")
    monkeypatch.setattr(service_user, "KEY_GROUP", "no-such-group")
    assert service_user.service_identity() is None


def test_user_named_kkdcpd_is_used_without_systemd(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(service_user, "BOOTED", folder / "none")
    monkeypatch.setattr(service_user, "USER", USER)
    monkeypatch.setattr(service_user, "KEY_GROUP", GROUP)
    identity = service_user.service_identity()
    assert identity
    assert identity.text == USER
    assert grp.getgrnam(GROUP).gr_gid in identity.groups
