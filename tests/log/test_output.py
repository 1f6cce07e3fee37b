"""Output without a reader or with a slow reader: real pipes, sockets, terminals and files."""

import contextlib
import os
import pty
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.log.output import PATIENCE_MILLISECONDS, PIPE_BYTES, Output, is_journal
from lab.program import run

LINE = b"x" * 199 + b"\n"
SOON = 5.0


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    try:
        yield read, write
    finally:
        for descriptor in (read, write):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@contextlib.contextmanager
def output(descriptor: int) -> Iterator[Output]:
    made = Output(descriptor)
    try:
        yield made
    finally:
        made.close()


def fill(out: Output) -> int:
    """Write until a line is lost. Return the number of written lines."""
    count = 0
    while out.write(LINE):
        count += 1
    return count


def test_line_goes_through_a_pipe() -> None:
    with pipe() as (read, write), output(write) as out:
        assert out.write(LINE)
        assert os.read(read, 999) == LINE


def test_unread_pipe_stops_nothing() -> None:
    with pipe() as (read, write), output(write) as out:
        started = time.monotonic()
        assert fill(out) >= PIPE_BYTES // 4096 * (4096 // len(LINE)) * 0.9
        waited = time.monotonic() - started
        assert PATIENCE_MILLISECONDS / 1000 <= waited < SOON
        started = time.monotonic()
        assert not any(out.write(LINE) for _ in range(1000))
        assert (
            time.monotonic() - started < 10 * PATIENCE_MILLISECONDS / 1000
        )  # the lines do not wait one after the other
        os.read(read, PIPE_BYTES)
        assert out.write(LINE)


def test_pipe_of_others_keeps_blocking_for_them() -> None:
    with pipe() as (_read, write), output(write):
        assert os.get_blocking(write)


def test_slow_reader_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine the reader may begin late.
    monkeypatch.setattr("kkdcpd.log.output.PATIENCE_MILLISECONDS", 20 * PATIENCE_MILLISECONDS)
    with pipe() as (read, write), output(write) as filler, output(write) as out:
        fill(filler)
        reader = os.fork()
        if not reader:
            time.sleep(PATIENCE_MILLISECONDS / 3000)
            os.read(read, PIPE_BYTES)
            os._exit(0)
        assert out.write(LINE)
        os.waitpid(reader, 0)


def test_lines_of_several_processes_are_never_mixed() -> None:
    """Four processes write into a full pipe with a slow reader. The reader gets whole lines."""
    with pipe() as (read, write):
        writers = []
        for letter in b"abcd":
            pid = os.fork()
            if not pid:
                os.close(read)
                with output(write) as out:
                    for length in range(1, 4000, 3):
                        out.write(bytes((letter,)) * length + b"\n")
                os._exit(0)
            writers.append(pid)
        os.close(write)
        raw = b""
        while chunk := os.read(read, 5000):
            raw += chunk
        for pid in writers:
            os.waitpid(pid, 0)
    lines = raw.split(b"\n")
    assert lines.pop() == b""
    assert len(lines) > 1000
    assert all(len(set(line)) == 1 for line in lines)


def test_reader_that_is_gone_costs_its_lines_only() -> None:
    with pipe() as (read, write), output(write) as out:
        os.close(read)
        assert not out.write(LINE)
        assert not out.write(LINE)


@pytest.fixture
def stream() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        yield ours, theirs


def test_unread_socket_stops_nothing(stream: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = stream
    with output(ours.fileno()) as out:
        started = time.monotonic()
        count = fill(out)
        assert count > 10
        assert time.monotonic() - started < SOON
        assert os.get_blocking(ours.fileno())
        raw = b""
        while len(raw) < count * len(LINE):
            raw += theirs.recv(65536)
        assert raw == LINE * count
        assert out.write(LINE)


def test_socket_that_is_closed_costs_its_lines_only(stream: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = stream
    with output(ours.fileno()) as out:
        theirs.close()
        assert not out.write(LINE)


def test_stopped_terminal_stops_nothing() -> None:
    master, terminal = pty.openpty()
    try:
        with output(terminal) as out:
            started = time.monotonic()
            fill(out)
            assert time.monotonic() - started < SOON
            assert os.get_blocking(terminal)
    finally:
        os.close(master)
        os.close(terminal)


def test_line_after_one_that_was_broken_off_begins_anew(tmp_path: Path) -> None:
    """The file may be no longer than a line and a half, as a disk that is full."""
    path = tmp_path / "log"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with path.open("wb") as file, output(file.fileno()) as out:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
            assert [out.write(LINE) for _ in range(3)] == [True, False, False]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert out.write(LINE)
        assert out.write(LINE)
    assert path.read_bytes() == LINE + LINE[:100] + b"\n" + LINE + LINE


def test_pipe_that_may_not_be_opened_anew_does_not_block_either() -> None:
    """The pipe then is non-blocking for all processes that have it."""
    program = (
        "import os\n"
        "from kkdcpd.log.output import Output\n"
        "read, write = os.pipe()\n"
        "os.fchmod(write, 0)\n"
        "if not os.geteuid(): os.setuid(65534)\n"  # root may open everything
        "out = Output(write)\n"
        "while out.write(b'x' * 4000): pass\n"
        "print(os.get_blocking(write))"
    )
    assert run(sys.executable, "-c", program, environment=os.environ).expect_ok().output == "False\n"


def test_closed_output_accepts_no_line() -> None:
    with pipe() as (_read, write):
        out = Output(write)
        out.close()
        assert not out.write(LINE)


def test_second_close_of_an_output_closes_no_other_descriptor() -> None:
    with pipe() as (_read, write):
        out = Output(write)
        number = out._descriptor
        out.close()
        with open(os.devnull) as other:  # noqa: PTH123 - its number is what counts
            assert other.fileno() == number
            out.close()
            os.fstat(number)


def test_released_socket_accepts_no_line(stream: tuple[socket.socket, socket.socket]) -> None:
    out = Output(stream[0].fileno())
    out.close()
    assert not out.write(LINE)


@pytest.mark.parametrize("stream", ["", None, "1:2", "nonsense"])
def test_journal_is_known_by_its_name_alone(stream: str | None) -> None:
    with pipe() as (_read, write):
        assert not is_journal(write, stream)


def test_journal_is_where_systemd_says() -> None:
    with pipe() as (read, write):
        status = os.fstat(write)
        assert is_journal(write, f"{status.st_dev}:{status.st_ino}")
        os.close(read)
