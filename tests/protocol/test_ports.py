import pytest

from kkdcpd.protocol.ports import parse_port


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("88", 88), ("00088", 88), ("65535", 65535)])
def test_numbers_of_ports_are_read(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["", "65536", "-1", "+88", " 88", "88\n", "8_8", "٨٨", "0x58", "8" * 4301])
def test_all_else_is_no_port(text: str) -> None:
    assert parse_port(text) is None
