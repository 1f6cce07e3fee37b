"""Responses go out in pieces, as far as the wire takes them. Real sockets and TLS are in test_connection."""

import asyncio

import pytest

from kkdcpd.frontends.http.wire import PIECE_BYTES, Owner, Wire


class Sink(asyncio.Transport):
    """Takes so many pieces, and then has its writer pause."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.taken: list[bytes] = []
        self.wire: Wire[Ending] | None = None
        self.is_closed = False
        self.takes_bytes = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.taken.append(bytes(data))
        if len(self.taken) >= self.room and self.wire:
            self.wire.is_paused = True

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.takes_bytes = False

    def resume_reading(self) -> None:
        self.takes_bytes = True


class Ending(Owner):
    """An owner that counts."""

    def __init__(self) -> None:
        self.ends = 0

    def end(self) -> None:
        self.ends += 1

    def cut_off(self, reason: str) -> None:
        raise AssertionError(reason)


def connected(room: int) -> tuple[Sink, Wire[Ending]]:
    sink = Sink(room)
    sink.wire = Wire(sink, Ending(), 1.0)
    return sink, sink.wire


LONG = bytes(range(256)) * (PIECE_BYTES // 256) * 3 + b"rest"


def test_long_response_goes_out_in_pieces() -> None:
    sink, wire = connected(room=100)
    wire.write(LONG)
    assert b"".join(sink.taken) == LONG
    assert max(map(len, sink.taken)) == PIECE_BYTES


def test_rest_waits_until_the_wire_takes_more() -> None:
    sink, wire = connected(room=2)
    wire.write(LONG)
    assert (len(sink.taken), wire.get_write_buffer_size()) == (2, PIECE_BYTES + 4)
    sink.room = 100
    assert wire.resume()
    assert (b"".join(sink.taken), wire.get_write_buffer_size()) == (LONG, 0)


@pytest.mark.parametrize("room", [1, 100])
def test_close_waits_for_the_rest(room: int) -> None:
    sink, wire = connected(room)
    wire.write(LONG)
    wire.close()
    wire.close()
    assert (sink.is_closed, wire.is_closing(), wire.owner.ends) == (room == 100, True, 1)
    sink.room = 100
    assert wire.resume()
    assert sink.is_closed
    assert b"".join(sink.taken) == LONG


def test_reading_goes_on_only_where_it_was_paused() -> None:
    sink, wire = connected(room=1)
    wire.pause_reading()
    assert (sink.takes_bytes, wire.is_reading_paused) == (False, True)
    wire.resume_reading()
    assert (sink.takes_bytes, wire.is_reading_paused) == (True, False)


def test_aiohttp_learns_nothing_of_the_socket() -> None:
    _, wire = connected(room=1)
    assert wire.get_extra_info("socket") is None
    assert wire.get_extra_info("peername", "default") == "default"
