import errno
import inspect
import os
from pathlib import Path

import pytest

from kkdcpd import errors
from kkdcpd.config import ListenAddress
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.errors import (
    ConfigError,
    ConfigProblem,
    ExchangeError,
    KkdcpdError,
    ListenError,
    LocateError,
    NoKdcReachedError,
    RequestError,
    SettingError,
)
from kkdcpd.values import AttemptFailure, FailureReason, Outcome

ERRORS = [
    item
    for _, item in inspect.getmembers(errors, inspect.isclass)
    if issubclass(item, Exception) and item.__module__ == errors.__name__
]
ENDS_A_REQUEST = [
    error
    for error in ERRORS
    if issubclass(error, RequestError | LocateError | ExchangeError)
    and error not in {RequestError, LocateError, ExchangeError}
]


def failure(name: str, reason: FailureReason) -> AttemptFailure:
    endpoint = KdcEndpoint(name=name, address="192.0.2.10", port=88, transport=Transport.TCP)
    return AttemptFailure(endpoint=endpoint, reason=reason, may_be_delivered=False)


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_has_the_same_base_class(error: type[Exception]) -> None:
    assert issubclass(error, KkdcpdError)


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_in_the_drawn_tree_and_can_be_imported(error: type[Exception]) -> None:
    assert error.__name__ in (errors.__doc__ or "")
    assert error.__name__ in errors.__all__


@pytest.mark.parametrize("error", ENDS_A_REQUEST)
def test_every_error_that_ends_a_request_has_its_own_outcome(error: type[RequestError]) -> None:
    assert isinstance(error.outcome, Outcome)
    assert [other for other in ENDS_A_REQUEST if other.outcome is error.outcome] == [error]


def test_problem_names_its_key_and_its_remedy() -> None:
    problem = ConfigProblem(key="http.paths", problem="is empty", remedy="write a path")
    assert str(problem) == "http.paths: is empty; write a path"


def test_configuration_error_has_a_line_for_each_problem() -> None:
    problems = [ConfigProblem(key=key, problem="is wrong", remedy="mend it") for key in "ab"]
    error = ConfigError(problems)
    assert error.problems == tuple(problems)
    assert str(error) == "a: is wrong; mend it\nb: is wrong; mend it"


def test_setting_error_may_have_no_remedy() -> None:
    assert SettingError("has no port").remedy is None


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EADDRINUSE, "stop the program that uses this"),
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "no network interface of this host has this address"),
        (errno.ENODEV, "no such network interface"),
        (errno.EMFILE, "correct the address"),
    ],
)
def test_listen_error_names_address_reason_and_remedy(number: int, remedy: str) -> None:
    text = str(ListenError(ListenAddress(host="::1", port=443), OSError(number, os.strerror(number))))
    assert text.startswith(f"can't listen on [::1]:443: {os.strerror(number)}; ")
    assert remedy in text


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EADDRINUSE, "`ss -lxp` shows it"),
        (errno.EACCES, "write to the folder of the socket"),
        (errno.ENOENT, "create the folder of the socket, or choose another path"),
        (errno.EROFS, "RuntimeDirectory="),
        (errno.EEXIST, "remove the file at this path"),
        (errno.ENOTDIR, "a part of the path is a file"),
    ],
)
def test_listen_error_of_a_unix_socket_names_its_path_or_folder(number: int, remedy: str) -> None:
    address = ListenAddress(unix_path=Path("/run/x.sock"))
    assert remedy in str(ListenError(address, OSError(number, os.strerror(number))))


def test_listen_error_without_errno_has_a_remedy() -> None:
    assert "correct the address" in str(ListenError("x", OSError("strange")))


def test_exchange_error_lists_each_attempt() -> None:
    error = NoKdcReachedError(
        [failure("a", FailureReason.REFUSED), failure("b", FailureReason.CONNECT_TIMEOUT)]
    )
    assert str(error) == "tcp://a:88 refused, tcp://b:88 connect_timeout"
