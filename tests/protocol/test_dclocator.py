import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.protocol.dclocator import flags_of
from kkdcpd.values import DcLocatorFlags as Flags

DEFAULT = Flags.IP_REQUIRED | Flags.KDC_REQUIRED


@pytest.mark.parametrize(
    ("hint", "flags"),
    [
        (None, DEFAULT),
        (0, Flags(0)),
        (0x600, DEFAULT),
        (0x480, Flags.PDC_REQUIRED | Flags.KDC_REQUIRED),
        (0x1000, Flags.WRITABLE_REQUIRED),
        (0x1, Flags.FORCE_REDISCOVERY),
        (0x10000, Flags.IS_FLAT_NAME),
        (0x20000, Flags.IS_DNS_NAME),
    ],
)
def test_hint_is_the_flags_of_ds_get_dc_name(hint: int | None, flags: Flags) -> None:
    assert flags_of(hint, is_armored=False) == flags


@pytest.mark.parametrize(
    "hint",
    [
        pytest.param(0x80000600 - (1 << 32), id="negative, as a signed integer of 32 bits"),
        pytest.param(0x80000600, id="positive, in 5 bytes of DER"),
    ],
)
def test_highest_bit_may_be_encoded_in_both_ways(hint: int) -> None:
    assert flags_of(hint, is_armored=False) == DEFAULT


def test_bits_beyond_32_are_dropped() -> None:
    assert flags_of(0x80 << 32 | 0x600, is_armored=False) == DEFAULT


def test_unknown_flags_are_dropped() -> None:
    assert flags_of(0x40800600 | 0x10 | 0x100, is_armored=False) == DEFAULT


def test_flat_and_dns_name_together_are_dropped() -> None:
    assert flags_of(0x30600, is_armored=False) == DEFAULT


@pytest.mark.parametrize("hint", [None, 0x600, 0x200600])
def test_armored_request_requires_a_kdc_with_fast(hint: int | None) -> None:
    assert flags_of(hint, is_armored=True) == DEFAULT | Flags.DIRECTORY_SERVICE_8_REQUIRED


@given(hint=st.integers() | st.none(), is_armored=st.booleans())
def test_no_hint_is_refused(hint: int | None, is_armored: bool) -> None:
    assert flags_of(hint, is_armored=is_armored) in ~Flags(0)
