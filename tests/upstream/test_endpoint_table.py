"""Tests of the table of endpoints and its quotas."""

from dataclasses import replace

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.upstream.endpoint_table import MAX_ENDPOINTS, MAX_OF_BRANCH, MAX_OF_BRANCHES, EndpointTable

KDC = KdcEndpoint(name="kdc.example.com", address="192.0.2.1", port=88, transport=Transport.TCP)


def endpoint(number: int, branch: str = "") -> KdcEndpoint:
    return replace(KDC, address=f"198.51.{number // 256}.{number % 256}", branch=branch)


def fill(table: EndpointTable[int], numbers: range, branch: str = "") -> list[KdcEndpoint | None]:
    """Add the endpoints that have room; return the displaced endpoints."""
    members = [endpoint(number, branch) for number in numbers]
    return [
        table.add(each, number) for number, each in zip(numbers, members, strict=True) if table.has_room(each)
    ]


def test_endpoints_of_configured_realms_are_bounded_and_displace_none() -> None:
    table = EndpointTable[int]()
    displaced = fill(table, range(MAX_ENDPOINTS + 100))
    assert (len(displaced), len(table), set(displaced)) == (MAX_ENDPOINTS, MAX_ENDPOINTS, {None})
    assert table.get(endpoint(MAX_ENDPOINTS)) is None
    assert table.pop(endpoint(7)) == 7
    assert table.has_room(endpoint(MAX_ENDPOINTS))


def test_branch_displaces_its_own_oldest_endpoints() -> None:
    table = EndpointTable[int]()
    table.add(KDC, -1)
    fill(table, range(10), "other.example.com")
    displaced = fill(table, range(1000, 1000 + MAX_OF_BRANCH + 2), "evil.example.com")
    assert displaced[-2:] == [endpoint(1000), endpoint(1001)]
    assert len(table) == 1 + 10 + MAX_OF_BRANCH
    assert (table.get(KDC), table.get(endpoint(0))) == (-1, 0)


def test_largest_branch_makes_room_when_all_branches_are_full() -> None:
    table = EndpointTable[int]()
    for number in range(4):
        fill(table, range(1000 * number, 1000 * number + MAX_OF_BRANCH), f"evil-{number}.example.com")
    assert len(table) == MAX_OF_BRANCHES
    assert fill(table, range(9000, 9001), "new.example.com") == [endpoint(0)]
    assert len(table) == MAX_OF_BRANCHES
    fill(table, range(MAX_ENDPOINTS, 2 * MAX_ENDPOINTS), "")
    assert len(table) == MAX_OF_BRANCHES + MAX_ENDPOINTS


def test_endpoint_leaves_the_branch_that_it_was_added_for() -> None:
    table = EndpointTable[int]()
    table.add(endpoint(1, "one.example.com"), 1)
    assert table.pop(endpoint(1, "other.example.com")) == 1
    assert table.pop(endpoint(1)) is None
    assert (len(table), list(table.values())) == (0, [])
