"""Every error kkdcpd raises on purpose; any other exception is a bug.

KkdcpdError
├── ConfigError               the configuration can't be used: one problem or many
├── SettingError              one value of it can't be used; who knows its key makes a ConfigProblem of this
├── ListenError               an address can't be listened on
├── StartError                the workers can't be started, or don't get ready
├── RequestError              the client's fault
│   ├── MalformedError        octets that are not what the specification says
│   ├── NoTargetDomainError   [MS-KKDCP] 3.2.5.1, step 2
│   ├── MalformedHttpError
│   ├── PathNotFoundError
│   ├── MethodNotAllowedError
│   ├── BodyTooLargeError
│   └── BodyTimeoutError
├── LocateError               the realm can't be served
│   ├── RealmNotServedError
│   ├── NoKdcKnownError
│   └── DnsFailedError        DNS gave no answer, which is not the answer that there is none
└── ExchangeError             no reply was had; bears the failures
    ├── NoKdcReachedError     no KDC took the message: it was never sent
    └── NoKdcReplyError       a KDC has the message but gave no usable reply

Those that can end a request bear its `outcome`. Their text is for the operator's log: it may name internal
addresses and never goes to a client.
"""

import errno
from collections.abc import Sequence
from typing import ClassVar

from kkdcpd.frozen import frozen
from kkdcpd.values import AttemptFailure, Outcome

__all__ = [
    "BodyTimeoutError",
    "BodyTooLargeError",
    "ConfigError",
    "ConfigProblem",
    "DnsFailedError",
    "ExchangeError",
    "KkdcpdError",
    "ListenError",
    "LocateError",
    "MalformedError",
    "MalformedHttpError",
    "MethodNotAllowedError",
    "NoKdcKnownError",
    "NoKdcReachedError",
    "NoKdcReplyError",
    "NoTargetDomainError",
    "PathNotFoundError",
    "RealmNotServedError",
    "RequestError",
    "SettingError",
    "StartError",
    "unix_remedy",
]


class KkdcpdError(Exception):
    """The root of the tree."""


@frozen
class ConfigProblem:
    """One thing wrong in the configuration: the dotted key, what is wrong, what to write instead.

    `is_temporary` if it may be gone at a later start though the configuration stays as it is.
    """

    key: str
    problem: str
    remedy: str
    is_temporary: bool = False

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}; {self.remedy}"


class ConfigError(KkdcpdError):
    """The configuration can't be used, for each of `problems`."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        self.is_temporary = all(problem.is_temporary for problem in self.problems)
        super().__init__("\n".join(map(str, self.problems)))


class SettingError(KkdcpdError):
    """One value can't be used. `problem` goes on from the value, as in `"*" has no port`.

    Without a `remedy` of its own it has the one that fits every value of the setting. `is_temporary` is as in
    ConfigProblem.
    """

    def __init__(self, problem: str, remedy: str | None = None, *, is_temporary: bool = False) -> None:
        self.problem = problem
        self.remedy = remedy
        self.is_temporary = is_temporary
        super().__init__(problem)


class ListenError(KkdcpdError):
    """An address of the configuration can't be listened on, for the system's reason in `error`.

    `section` is where it stands, if not in [[listen]]. Without a `remedy`, the reason has one.
    """

    def __init__(self, address: object, error: OSError, section: str = "", remedy: str | None = None) -> None:
        is_unix = str(address).startswith("unix:")
        remedy = remedy or (unix_remedy(error) if is_unix else _inet_remedy(error))
        place = f"{address} for {section}" if section else str(address)
        super().__init__(f"can't listen on {place}: {error.strerror}; {remedy}")


class StartError(KkdcpdError):
    """The workers can't be started, or don't get ready."""

    def __init__(self, reason: str, remedy: str = "the log says what happened to it") -> None:
        super().__init__(f"can't start: {reason}; {remedy}")


def unix_remedy(error: OSError) -> str:
    """Say what helps where a unix socket can't be listened on."""
    return _UNIX_REMEDIES.get(error.errno or 0, _ANY_REMEDY)


def _inet_remedy(error: OSError) -> str:
    return _LISTEN_REMEDIES.get(error.errno or 0, _ANY_REMEDY)


_ANY_REMEDY = "correct the address, or make it available"
_LISTEN_REMEDIES = {
    errno.EADDRINUSE: "stop the program that has it (`ss -ltnp` names it), or choose another port",
    errno.EACCES: (
        "let systemd open it (kkdcpd.socket), start with CAP_NET_BIND_SERVICE, or choose a port above 1023,"
        ' such as address = "*:8443"'
    ),
    errno.EADDRNOTAVAIL: "no interface of this host has the address: correct it, or bring the interface up",
    errno.ENODEV: "this host has no such network interface: correct the zone after the %, or bring it up",
    errno.ENXIO: "this host has no such network interface: correct the zone after the %, or bring it up",
}
_UNIX_REMEDIES = {
    errno.EADDRINUSE: "stop the program that has it (`ss -lxp` names it), or choose another path",
    errno.EACCES: "let the user that kkdcpd starts as write to its folder, or choose another path",
    errno.EPERM: "let the user that kkdcpd starts as write to its folder, or choose another path",
    errno.EROFS: (
        "let kkdcpd write there (systemd: RuntimeDirectory= or ReadWritePaths=), or choose another path"
    ),
    errno.ENOENT: "make its folder",
    errno.EEXIST: "remove the file that is there, or choose another path",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
}


class RequestError(KkdcpdError):
    """The client's fault."""

    outcome: ClassVar[Outcome]


class MalformedError(RequestError):
    """Octets that are not what the specification says."""

    outcome = Outcome.MALFORMED_MESSAGE


class NoTargetDomainError(RequestError):
    """A client's KDC-PROXY-MESSAGE without target-domain ([MS-KKDCP] 3.2.5.1: ERROR_BAD_FORMAT)."""

    outcome = Outcome.NO_TARGET_DOMAIN


class MalformedHttpError(RequestError):
    """A request that breaks a rule of HTTP. The message names the rule."""

    outcome = Outcome.MALFORMED_HTTP


class PathNotFoundError(RequestError):
    """A request for a path that is not served."""

    outcome = Outcome.PATH_NOT_FOUND


class MethodNotAllowedError(RequestError):
    """A request with another method than POST."""

    outcome = Outcome.METHOD_NOT_ALLOWED


class BodyTooLargeError(RequestError):
    """The request's body is over the limit."""

    outcome = Outcome.BODY_TOO_LARGE


class BodyTimeoutError(RequestError):
    """The request's body didn't arrive in time."""

    outcome = Outcome.BODY_TIMEOUT


class LocateError(KkdcpdError):
    """No KDC can be named for the realm."""

    outcome: ClassVar[Outcome]


class RealmNotServedError(LocateError):
    """No configured realm or alias has this name."""

    outcome = Outcome.REALM_NOT_SERVED


class NoKdcKnownError(LocateError):
    """The realm is served, but no endpoint is known for this service."""

    outcome = Outcome.NO_KDC_KNOWN


class DnsFailedError(LocateError):
    """DNS gave no answer: time-out, SERVFAIL, REFUSED. That there are no records is an answer."""

    outcome = Outcome.DNS_FAILED


class ExchangeError(KkdcpdError):
    """No reply was had from any KDC; `failures` tells what was tried."""

    outcome: ClassVar[Outcome]

    def __init__(self, failures: Sequence[AttemptFailure]) -> None:
        self.failures = tuple(failures)
        super().__init__(", ".join(map(str, self.failures)))


class NoKdcReachedError(ExchangeError):
    """No KDC took the message."""

    outcome = Outcome.NO_KDC_REACHED


class NoKdcReplyError(ExchangeError):
    """A KDC has the message, so nobody else may get it, and it gave no usable reply."""

    outcome = Outcome.NO_KDC_REPLY
