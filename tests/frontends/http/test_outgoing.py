"""Responses go out in pieces, as far as the wire takes them. Real sockets and TLS are in test_connection."""

import asyncio

import pytest

from kkdcpd.frontends.http.outgoing import PIECE_BYTES, Outgoing


class Wire(asyncio.Transport):
    """Takes so many pieces, and then has its writer pause."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.taken: list[bytes] = []
        self.outgoing: Outgoing[Ending] | None = None
        self.is_closed = False
        self.takes_bytes = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.taken.append(bytes(data))
        if len(self.taken) >= self.room and self.outgoing:
            self.outgoing.is_paused = True

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


class Ending:
    """An owner that counts."""

    def __init__(self) -> None:
        self.ends = 0

    def end(self) -> None:
        self.ends += 1


def connected(room: int) -> tuple[Wire, Outgoing[Ending]]:
    wire = Wire(room)
    wire.outgoing = Outgoing(wire, Ending())
    return wire, wire.outgoing


LONG = bytes(range(256)) * (PIECE_BYTES // 256) * 3 + b"rest"


def test_long_response_goes_out_in_pieces() -> None:
    wire, outgoing = connected(room=100)
    outgoing.write(LONG)
    assert b"".join(wire.taken) == LONG
    assert max(map(len, wire.taken)) == PIECE_BYTES


def test_rest_waits_until_the_wire_takes_more() -> None:
    wire, outgoing = connected(room=2)
    outgoing.write(LONG)
    assert (len(wire.taken), outgoing.get_write_buffer_size()) == (2, PIECE_BYTES + 4)
    wire.room = 100
    outgoing.is_paused = False
    outgoing.go_on()
    assert (b"".join(wire.taken), outgoing.get_write_buffer_size()) == (LONG, 0)


@pytest.mark.parametrize("room", [1, 100])
def test_close_waits_for_the_rest(room: int) -> None:
    wire, outgoing = connected(room)
    outgoing.write(LONG)
    outgoing.close()
    outgoing.close()
    assert (wire.is_closed, outgoing.is_closing(), outgoing.owner.ends) == (room == 100, True, 1)
    wire.room = 100
    outgoing.is_paused = False
    outgoing.go_on()
    assert wire.is_closed
    assert b"".join(wire.taken) == LONG


def test_reading_goes_on_only_where_it_was_paused() -> None:
    wire, outgoing = connected(room=1)
    outgoing.pause_reading()
    assert (wire.takes_bytes, outgoing.is_reading_paused) == (False, True)
    outgoing.resume_reading()
    assert (wire.takes_bytes, outgoing.is_reading_paused) == (True, False)


def test_aiohttp_learns_nothing_of_the_socket() -> None:
    _, outgoing = connected(room=1)
    assert outgoing.get_extra_info("socket") is None
    assert outgoing.get_extra_info("peername", "default") == "default"
