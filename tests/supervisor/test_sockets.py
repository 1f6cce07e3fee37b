"""The listening sockets in the kernel. test_parent has the tests with a daemon."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.config import ListenConfig, read_config
from kkdcpd.errors import ListenError
from kkdcpd.supervisor.sockets import Sockets


def listen(*addresses: str, mode: str = "0660") -> tuple[ListenConfig, ...]:
    """The [[listen]]s of a configuration with these addresses."""
    text = "".join(
        f'[[listen]]\naddress = "{address}"\ntls = false\nplain_http_anywhere = true\n'
        + (f'unix_mode = "{mode}"\n' if address.startswith("unix:") else "")
        for address in addresses
    )
    text += '[realms."EXAMPLE.COM"]\nkdc = ["kdc.example.com"]\n'
    return tuple(read_config(text, source=Path("/nowhere.toml")).listen)


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    sockets = Sockets()
    yield sockets
    sockets.close()


@pytest.fixture
def given() -> Iterator[socket.socket]:
    """A socket as systemd passes it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def address_of(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname()[:2])


def test_socket_stays_open_as_long_as_it_is_named(sockets: Sockets) -> None:
    ((first,),) = sockets.open(listen("127.0.0.1:0"))
    second, again = sockets.open(listen("[::1]:0", "127.0.0.1:0"))
    assert again == [first]
    sockets.keep_only(listen("[::1]:0"))
    assert first.fileno() == -1
    assert second[0].fileno() != -1


def test_port_0_many_times_is_as_many_sockets(sockets: Sockets) -> None:
    opened = sockets.open(listen("127.0.0.1:0", "127.0.0.1:0"))
    assert len({address_of(one) for (one,) in opened}) == 2
    assert sockets.open(listen("127.0.0.1:0", "127.0.0.1:0")) == opened


def test_failure_changes_nothing(sockets: Sockets, given: socket.socket, tmp_path: Path) -> None:
    ((kept,),) = sockets.open(listen("127.0.0.1:0"))
    path = tmp_path / "http.sock"
    with pytest.raises(ListenError, match="Address already in use"):
        sockets.open(listen("127.0.0.1:0", f"unix:{path}", address_of(given)))
    assert not path.exists()
    assert kept.fileno() != -1


def test_mode_of_a_unix_socket_changes_when_the_configuration_is_kept(
    sockets: Sockets, tmp_path: Path
) -> None:
    path = tmp_path / "http.sock"
    sockets.open(listen(f"unix:{path}"))
    other = listen(f"unix:{path}", mode="0600")
    sockets.open(other)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    sockets.keep_only(other)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_unix_socket_that_is_named_no_more_is_removed(sockets: Sockets, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    sockets.open(listen(f"unix:{path}"))
    sockets.keep_only(())
    assert not path.exists()


def test_unix_socket_whose_file_is_gone_is_opened_anew(sockets: Sockets, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    ((first,),) = sockets.open(listen(f"unix:{path}"))
    path.unlink()
    ((second,),) = sockets.open(listen(f"unix:{path}"))
    assert second is not first
    # Until the reload has succeeded, the serving workers have the first socket.
    assert first.fileno() != -1
    sockets.keep_only(listen(f"unix:{path}"))
    assert first.fileno() == -1
    assert sockets.open(listen(f"unix:{path}")) == [[second]]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_unix_socket_that_another_socket_replaced_is_opened_anew(sockets: Sockets, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    sockets.open(listen(f"unix:{path}"))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    sockets.open(listen(f"unix:{path}"))
    sockets.keep_only(listen(f"unix:{path}"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("kind", ["file", "directory", "socket in use"])
def test_other_file_in_a_unix_socket_s_place_stays_and_is_named(
    sockets: Sockets, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "http.sock"
    ((first,),) = sockets.open(listen(f"unix:{path}"))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        if kind == "file":
            path.write_text("another program's")
        elif kind == "directory":
            path.mkdir()
        else:
            other.bind(str(path))
            other.listen()
        remedy = "stop the program that uses this" if kind == "socket in use" else "remove the file"
        # The reload may be about a new certificate: it goes on without this socket.
        assert sockets.open(listen(f"unix:{path}")) == [[first]]
        (problem,) = sockets.unreachable()
        assert problem.startswith(f"can't listen on unix:{path}: ")
        assert remedy in problem
        assert path.exists()


def test_failed_reload_restores_the_sockets_that_it_replaced(sockets: Sockets, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    ((first,),) = sockets.open(listen(f"unix:{path}"))
    path.unlink()
    ((second,),) = sockets.open(listen(f"unix:{path}"))
    sockets.go_back()
    sockets.keep_only(listen(f"unix:{path}"))
    assert (first.fileno() != -1, second.fileno()) == (True, -1)
    # The next reload makes it again.
    assert not path.exists()
    sockets.open(listen(f"unix:{path}"))
    assert path.exists()


def test_file_of_a_successor_is_left_alone(sockets: Sockets, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    sockets.open(listen(f"unix:{path}"))
    path.unlink()
    path.write_text("another one's")
    sockets.close()
    assert path.read_text() == "another one's"


def test_socket_of_systemd_is_used_for_its_address_and_stays_open_without_a_listener(
    given: socket.socket,
) -> None:
    sockets = Sockets([given])
    assert sockets.unclaimed() == [address_of(given)]
    assert sockets.open(listen(address_of(given))) == [[given]]
    assert sockets.unclaimed() == []
    sockets.keep_only(())
    assert sockets.unclaimed() == [address_of(given)]
    assert given.fileno() != -1
    assert given.gettimeout() == 0.0
    sockets.close()
    assert given.fileno() == -1


@pytest.mark.parametrize(
    ("given_at", "wanted"),
    [
        ("127.0.0.1", "127.0.0.1:{}"),
        ("::ffff:127.0.0.1", "127.0.0.1:{}"),
        ("127.0.0.1", "[::ffff:127.0.0.1]:{}"),
        ("::", "[::]:{}"),
        ("::", "*:{}"),
        ("0.0.0.0", "*:{}"),
    ],
)
def test_systemd_s_socket_is_taken_however_its_address_is_written(given_at: str, wanted: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in given_at else socket.AF_INET) as given:
        given.bind((given_at, 0))
        given.listen()
        sockets = Sockets([given])
        assert sockets.open(listen(wanted.format(given.getsockname()[1]))) == [[given]]


def test_address_that_systemd_opened_otherwise_is_named_with_what_to_change(given: socket.socket) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ListenError) as caught:
            Sockets([given]).open(listen(address_of(other)))
        assert str(caught.value) == (
            f"can't listen on {address_of(other)}: Address already in use; "
            f"systemd has opened {address_of(given)} for kkdcpd: write that as the address in [[listen]], "
            "or change ListenStream= in the .socket unit"
        )


def test_star_takes_systemd_s_sockets_of_both_families() -> None:
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
        four.bind(("0.0.0.0", 0))
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        port = four.getsockname()[1]
        six.bind(("::", port))
        sockets = Sockets([four, six])
        assert sockets.open(listen(f"*:{port}")) == [[four, six]]


def test_systemd_s_unix_socket_is_taken_and_its_file_is_systemd_s(tmp_path: Path) -> None:
    path = tmp_path / "given.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        sockets = Sockets([given])
        assert sockets.open(listen(f"unix:{path}")) == [[given]]
        sockets.close()
    assert path.exists()


def test_forked_process_keeps_only_its_own_listeners(sockets: Sockets) -> None:
    (kept,), (other,) = sockets.open(listen("127.0.0.1:0", "[::1]:0"))
    pid = os.fork()
    if not pid:
        sockets.detach(kept=[kept])
        os._exit(0 if kept.fileno() != -1 and other.fileno() == -1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert other.fileno() != -1
