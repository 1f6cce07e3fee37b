import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.errors import BodyTooLargeError, MalformedError
from kkdcpd.protocol.framing import PREFIX_BYTES, MessageReader, add_prefix, has_prefix, read_prefix
from tests.support import messages


def test_length_of_the_payload_goes_before_it() -> None:
    assert add_prefix(b"abc") == b"\x00\x00\x00\x03abc"


def test_length_has_four_bytes_however_large_it_is() -> None:
    assert add_prefix(bytes(70_000))[:PREFIX_BYTES] == b"\x00\x01\x11\x70"


@given(st.binary(min_size=1, max_size=300))
def test_added_prefix_is_recognized_and_read_back(payload: bytes) -> None:
    assert has_prefix(add_prefix(payload))
    assert read_prefix(add_prefix(payload)) == len(payload)


@pytest.mark.parametrize("length", range(PREFIX_BYTES))
def test_fewer_than_four_bytes_have_no_length(length: int) -> None:
    with pytest.raises(MalformedError, match=f"a kerb-message of {length} bytes"):
        read_prefix(bytes(length))


@pytest.mark.parametrize("length", range(PREFIX_BYTES + 1))
def test_nothing_after_the_length_is_no_prefix(length: int) -> None:
    assert not has_prefix(bytes(length))


@pytest.mark.parametrize("difference", [-1, 1])
def test_length_that_is_not_that_of_the_rest_is_no_prefix(difference: int) -> None:
    assert not has_prefix((10 + difference).to_bytes(4, "big") + bytes(10))


@pytest.mark.parametrize(
    "payload",
    [messages.as_req(), messages.tgs_req(), messages.kpasswd_req(), messages.kpasswd_req(version=0xFF80)],
    ids=["AS_REQ", "TGS_REQ", "kpasswd version 1", "kpasswd version 0xff80"],
)
def test_no_request_begins_as_a_prefix_would(payload: bytes) -> None:
    assert not has_prefix(payload)


def read_in_pieces(data: bytes, sizes: list[int], max_bytes: int = 1000) -> list[bytes]:
    """Feed the data in pieces of these sizes, and return all messages."""
    reader, found = MessageReader(max_bytes), []
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        reader.feed(piece)
        while (message := reader.next_message()) is not None:
            found.append(message)
    assert reader.held_bytes == 0
    return found


@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(1, 30), max_size=20))
def test_reader_returns_every_message_however_the_stream_is_cut(
    payloads: list[bytes], sizes: list[int]
) -> None:
    sent = [add_prefix(payload) for payload in payloads]
    assert read_in_pieces(b"".join(sent), sizes) == sent


@pytest.mark.parametrize("length", [11, 0x7FFFFFFF, 0x80000000, 0x8000000A, 0xFFFFFFFF])
def test_reader_refuses_a_length_over_the_limit_or_with_the_high_bit(length: int) -> None:
    reader = MessageReader(10)
    reader.feed(length.to_bytes(4, "big"))
    with pytest.raises(BodyTooLargeError, match=f"a length of {length} bytes"):
        reader.next_message()


def test_reader_keeps_a_message_that_is_not_complete() -> None:
    reader = MessageReader(10)
    assert reader.held_bytes == 0
    reader.feed(b"\x00")
    assert (reader.next_message(), reader.held_bytes) == (None, 1)
    reader.feed(b"\x00\x00\x0a123456789")
    assert (reader.next_message(), reader.held_bytes) == (None, 13)
    reader.feed(b"0")
    assert (reader.next_message(), reader.held_bytes) == (b"\x00\x00\x00\x0a1234567890", 0)
