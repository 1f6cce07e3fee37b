import pytest

from kkdcpd.protocol.error_codes import KrbErrorCode, error_name


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0, "KDC_ERR_NONE"),
        (6, "KDC_ERR_C_PRINCIPAL_UNKNOWN"),
        (18, "KDC_ERR_CLIENT_REVOKED"),
        (23, "KDC_ERR_KEY_EXPIRED"),
        (24, "KDC_ERR_PREAUTH_FAILED"),
        (25, "KDC_ERR_PREAUTH_REQUIRED"),
        (29, "KDC_ERR_SVC_UNAVAILABLE"),
        (34, "KRB_AP_ERR_REPEAT"),
        (37, "KRB_AP_ERR_SKEW"),
        (52, "KRB_ERR_RESPONSE_TOO_BIG"),
        (60, "KRB_ERR_GENERIC"),
        (68, "KDC_ERR_WRONG_REALM"),
        (91, "KDC_ERR_MORE_PREAUTH_DATA_REQUIRED"),
        (93, "KDC_ERR_UNKNOWN_CRITICAL_FAST_OPTIONS"),
    ],
)
def test_code_has_the_name_of_its_rfc(code: int, name: str) -> None:
    assert error_name(code) == name


@pytest.mark.parametrize("code", [-1, 30, 43, 1000, 2**31 - 1])
def test_code_that_no_rfc_has_is_unknown(code: int) -> None:
    assert error_name(code) == "UNKNOWN"


def test_no_code_has_two_names() -> None:
    assert len(KrbErrorCode) == len(KrbErrorCode.__members__)
