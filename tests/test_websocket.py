"""Two WebSockets that are joined in memory, on the event loop of the test."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from kkdcpd import websocket
from kkdcpd.websocket import CloseCode, WebSocket


class Pipe(asyncio.Transport):
    """A transport that keeps what is written until `deliver`."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False
        self.unsent_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


class End:
    """One end, and the messages that have come to it."""

    def __init__(self, side: Side) -> None:
        self.pipe = Pipe()
        self.protocol = Protocol(side, max_size=1000)
        self.messages: list[bytes] = []
        self.socket = WebSocket(self.protocol, self.pipe, self)

    def message_received(self, message: bytes) -> None:
        self.messages.append(message)

    def heartbeat(self) -> None:
        pass


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    client, server = End(Side.CLIENT), End(Side.SERVER)
    yield client, server
    client.socket.stop()
    server.socket.stop()


def deliver(source: End, target: End) -> None:
    data = bytes(source.pipe.written)
    source.pipe.written.clear()
    target.socket.receive(data)


async def test_messages_arrive_whole_and_in_order(ends: tuple[End, End]) -> None:
    client, server = ends
    for message in (b"", b"first", b"x" * 1000):
        client.socket.send(message)
    deliver(client, server)
    assert server.messages == [b"", b"first", b"x" * 1000]


async def test_fragments_are_joined(ends: tuple[End, End]) -> None:
    client, server = ends
    client.protocol.send_frame(Frame(Opcode.BINARY, b"one ", fin=False))
    client.protocol.send_frame(Frame(Opcode.CONT, b"message"))
    server.socket.receive(b"".join(client.protocol.data_to_send()))
    assert server.messages == [b"one message"]


async def test_oversized_message_closes_the_connection(ends: tuple[End, End]) -> None:
    client, server = ends
    client.socket.send(b"x" * 1001)
    deliver(client, server)
    assert not server.messages
    assert not server.socket.is_open
    deliver(server, client)
    assert client.protocol.close_rcvd
    assert client.protocol.close_rcvd.code == CloseCode.MESSAGE_TOO_BIG


async def test_no_message_is_taken_after_the_close(ends: tuple[End, End]) -> None:
    client, server = ends
    client.socket.send(b"late")
    server.socket.close(CloseCode.GOING_AWAY)
    deliver(client, server)
    assert not server.messages
    deliver(server, client)
    assert client.protocol.close_rcvd
    assert client.protocol.close_rcvd.code == CloseCode.GOING_AWAY


async def test_peer_that_never_answers_the_close_is_cut_off(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.01)
    _, server = ends
    server.socket.close(CloseCode.NORMAL_CLOSURE)
    async with asyncio.timeout(10):
        while not server.pipe.is_closed:  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(0.01)


async def test_peer_with_too_many_unsent_bytes_is_cut_off(ends: tuple[End, End]) -> None:
    _, server = ends
    server.pipe.unsent_bytes = websocket.MAX_UNSENT_BYTES + 1
    server.socket.send(b"reply")
    assert server.pipe.is_closed


async def test_message_before_a_close_frame_in_the_same_data_is_received(ends: tuple[End, End]) -> None:
    client, server = ends
    server.socket.send(b"last reply")
    server.socket.close(CloseCode.GOING_AWAY)
    client.socket.receive(bytes(server.pipe.written))
    assert client.messages == [b"last reply"]
    assert not client.socket.is_open
