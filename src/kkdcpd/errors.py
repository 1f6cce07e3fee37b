"""All errors that kkdcpd raises on purpose. Any other exception is a bug.

KkdcpdError
├── ConfigError               the configuration is unusable: one problem or more
├── SettingError              one value is unusable; the reader adds the key and makes a ConfigProblem
├── ListenError               kkdcpd cannot listen on an address
├── StartError                the worker processes do not start, or do not get ready
├── RequestError              the client's fault
│   ├── MalformedError        bytes that violate the specification
│   ├── NoTargetDomainError   [MS-KKDCP] 3.2.5.1, step 2
│   ├── MalformedHttpError
│   ├── PathNotFoundError
│   ├── MethodNotAllowedError
│   ├── PreflightError        a browser's question, with no message
│   ├── LoopDetectedError
│   ├── BodyTooLargeError
│   └── BodyTimeoutError
├── LocateError               no KDC is known for the realm
│   ├── RealmNotServedError
│   ├── NoKdcKnownError
│   └── DnsFailedError        DNS gave no answer, so it is unknown whether there are KDCs
└── ExchangeError             no KDC replied; has the failures of all attempts
    ├── NoKdcReachedError     no KDC got the message
    └── NoKdcReplyError       a KDC has the message but gave no usable reply

The errors that can end a request have its `outcome`. Their text is for the log: it may name internal
addresses, and no client gets it.
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
    "LoopDetectedError",
    "MalformedError",
    "MalformedHttpError",
    "MethodNotAllowedError",
    "NoKdcKnownError",
    "NoKdcReachedError",
    "NoKdcReplyError",
    "NoTargetDomainError",
    "PathNotFoundError",
    "PreflightError",
    "RealmNotServedError",
    "RequestError",
    "SettingError",
    "StartError",
    "unix_remedy",
]


class KkdcpdError(Exception):
    """The base class of all errors."""


@frozen
class ConfigProblem:
    """A problem in the configuration: the dotted key, the problem, and the remedy.

    `is_temporary`: a later start may succeed with the same configuration.
    """

    key: str
    problem: str
    remedy: str
    is_temporary: bool = False

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{key}{self.problem}{remedy}"


class ConfigError(KkdcpdError):
    """The configuration is unusable because of `problems`."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        self.is_temporary = all(problem.is_temporary for problem in self.problems)
        super().__init__("\n".join(map(str, self.problems)))


class SettingError(KkdcpdError):
    """A value is unusable. `problem` continues a sentence that begins with the value: `"*" has no port`.

    Without a `remedy`, the remedy of the setting applies. `is_temporary` is as in ConfigProblem.
    """

    def __init__(self, problem: str, remedy: str | None = None, *, is_temporary: bool = False) -> None:
        self.problem = problem
        self.remedy = remedy
        self.is_temporary = is_temporary
        super().__init__(problem)


class ListenError(KkdcpdError):
    """kkdcpd cannot listen on an address. `error` has the reason of the system.

    `section` is the section of the address, if it is not [[listen]]. Without a `remedy`, the reason decides.
    """

    def __init__(self, address: object, error: OSError, section: str = "", remedy: str | None = None) -> None:
        is_unix = str(address).startswith("unix:")
        self.remedy = remedy or (unix_remedy(error) if is_unix else _inet_remedy(error))
        where = f"{address} for {section}" if section else str(address)
        self.problem = f"can't listen on {where}: {error.strerror}"
        super().__init__(f"{self.problem}; {self.remedy}")


class StartError(KkdcpdError):
    """The worker processes do not start, or do not get ready."""

    def __init__(self, reason: str, remedy: str = "read the log lines before this one for the cause") -> None:
        self.problem = f"can't start: {reason}"
        self.remedy = remedy
        super().__init__(f"{self.problem}; {self.remedy}")


def unix_remedy(error: OSError) -> str:
    """Return the remedy for an error of a UNIX socket."""
    return _UNIX_REMEDIES.get(error.errno or 0, _ANY_REMEDY)


def _inet_remedy(error: OSError) -> str:
    return _LISTEN_REMEDIES.get(error.errno or 0, _ANY_REMEDY)


_ANY_REMEDY = "correct the address in the configuration, or make it available on this host"
_LISTEN_REMEDIES = {
    errno.EADDRINUSE: "stop the program that uses this address (`ss -ltnp` shows it), or choose another port",
    errno.EACCES: (
        "let systemd open the port (kkdcpd.socket), start with CAP_NET_BIND_SERVICE, or choose a port "
        'above 1023, such as address = "*:8443"'
    ),
    errno.EADDRNOTAVAIL: (
        "no network interface of this host has this address: correct the address, or bring the interface up"
    ),
    errno.ENODEV: (
        "this host has no such network interface: correct the zone after the %, or bring the interface up"
    ),
    errno.ENXIO: (
        "this host has no such network interface: correct the zone after the %, or bring the interface up"
    ),
}
_UNIX_REMEDIES = {
    errno.EADDRINUSE: "stop the program that uses this path (`ss -lxp` shows it), or choose another path",
    errno.EACCES: (
        "allow the user that starts kkdcpd to write to the folder of the socket, or choose another path"
    ),
    errno.EPERM: (
        "allow the user that starts kkdcpd to write to the folder of the socket, or choose another path"
    ),
    errno.EROFS: (
        "allow kkdcpd to write there (systemd: RuntimeDirectory= or ReadWritePaths=), or choose another path"
    ),
    errno.ENOENT: "create the folder of the socket, or choose another path",
    errno.EEXIST: "remove the file at this path, or choose another path",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
}


class RequestError(KkdcpdError):
    """An error of the client."""

    outcome: ClassVar[Outcome]


class MalformedError(RequestError):
    """Bytes that violate the specification."""

    outcome = Outcome.MALFORMED_MESSAGE


class NoTargetDomainError(RequestError):
    """A KDC-PROXY-MESSAGE without target-domain ([MS-KKDCP] 3.2.5.1, step 2: ERROR_BAD_FORMAT)."""

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


class PreflightError(RequestError):
    """A browser asks whether a script may send a request (CORS). There is no message, and no fault."""

    outcome = Outcome.PREFLIGHT


class LoopDetectedError(RequestError):
    """A request that this kkdcpd has forwarded before, and that comes back."""

    outcome = Outcome.LOOP_DETECTED


class BodyTooLargeError(RequestError):
    """The body of the request exceeds the limit."""

    outcome = Outcome.BODY_TOO_LARGE


class BodyTimeoutError(RequestError):
    """The body of the request did not arrive in time."""

    outcome = Outcome.BODY_TIMEOUT


class LocateError(KkdcpdError):
    """No KDC is known for the realm."""

    outcome: ClassVar[Outcome]


class RealmNotServedError(LocateError):
    """No configured realm, alias or wildcard has this name."""

    outcome = Outcome.REALM_NOT_SERVED


class NoKdcKnownError(LocateError):
    """The realm is served, but no endpoint is known for this service."""

    outcome = Outcome.NO_KDC_KNOWN


class DnsFailedError(LocateError):
    """DNS gave no answer: timeout, SERVFAIL, REFUSED. An empty answer is an answer."""

    outcome = Outcome.DNS_FAILED


class ExchangeError(KkdcpdError):
    """No KDC replied. `failures` are the failures of all attempts."""

    outcome: ClassVar[Outcome]

    def __init__(self, failures: Sequence[AttemptFailure]) -> None:
        self.failures = tuple(failures)
        super().__init__(", ".join(map(str, self.failures)))


class NoKdcReachedError(ExchangeError):
    """No KDC got the message."""

    outcome = Outcome.NO_KDC_REACHED


class NoKdcReplyError(ExchangeError):
    """A KDC has the message, so no other KDC may get it, and this KDC gave no usable reply."""

    outcome = Outcome.NO_KDC_REPLY
