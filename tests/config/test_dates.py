from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kkdcpd.config.dates import DatedItem, DatedKind, newly_outside_dates

NOW = datetime(2026, 2, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def item(
    kind: DatedKind = DatedKind.SERVER,
    *,
    key: str = "tls.certificate",
    path: str = "/a.pem",
    subject: str = "CN=a",
    start: datetime | None = NOW - DAY,
    end: datetime | None = NOW + DAY,
) -> DatedItem:
    return DatedItem(kind=kind, key=key, path=Path(path), subject=subject, start=start, end=end)


EXPIRED = NOW - timedelta(minutes=1)


@pytest.mark.parametrize(("start", "end"), [(NOW - DAY, NOW + DAY), (NOW, NOW), (None, None)])
def test_item_within_its_dates_or_without_any_is_no_problem(
    start: datetime | None, end: datetime | None
) -> None:
    assert item(start=start, end=end).problem(NOW) is None


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (DatedKind.SERVER, "the certificate in /a.pem expired on 2026-01-31 23:59 UTC; renew it"),
        (
            DatedKind.CLIENT_CA,
            (
                "the certificate of CN=a in /a.pem expired on 2026-01-31 23:59 UTC; "
                "renew it, or remove it if no client has a certificate from it"
            ),
        ),
        (
            DatedKind.CLIENT_CRL,
            (
                "the revocation list of CN=a in /a.pem expired on 2026-01-31 23:59 UTC; "
                "fetch the newest one; until then the certificates that it is for are refused"
            ),
        ),
    ],
)
def test_expired_item_is_a_problem(kind: DatedKind, problem: str) -> None:
    clock = "set this host's clock right (it says 2026-02-01 00:00 UTC)"
    assert str(item(kind, end=EXPIRED).problem(NOW)) == f"tls.certificate: {problem}; or {clock}"


def test_item_of_the_future_is_a_problem_with_the_time_of_this_host() -> None:
    assert str(item(start=NOW + DAY).problem(NOW)) == (
        "tls.certificate: the certificate in /a.pem is not valid before 2026-02-02 00:00 UTC; "
        "set this host's clock right (it says 2026-02-01 00:00 UTC), or wait"
    )


ADDITIONAL = "tls.additional[0].certificate"


@pytest.mark.parametrize(
    ("current", "is_refused"),
    [
        ([item()], True),
        ([], True),
        ([item(), item(key=ADDITIONAL, path="/b.pem", end=EXPIRED)], True),
        ([item(end=EXPIRED)], False),
        ([item(path="/b.pem", end=EXPIRED)], False),
        ([item(key=ADDITIONAL, end=EXPIRED)], False),
    ],
    ids=["valid", "none", "another one has expired", "expired", "same setting", "same file"],
)
def test_valid_item_is_not_replaced_by_an_invalid_item(current: list[DatedItem], is_refused: bool) -> None:
    assert bool(newly_outside_dates([item(end=EXPIRED)], current, NOW)) == is_refused
    assert newly_outside_dates([item()], current, NOW) == ()


def test_authorities_and_lists_are_known_by_their_subjects() -> None:
    """A file has many authorities under one setting."""
    bad = item(DatedKind.CLIENT_CRL, subject="CN=b", end=EXPIRED)
    current = [item(DatedKind.CLIENT_CRL), item(DatedKind.CLIENT_CA, subject="CN=b", end=EXPIRED)]
    assert newly_outside_dates([bad], current, NOW)
    assert newly_outside_dates([bad], [*current, bad], NOW) == ()
