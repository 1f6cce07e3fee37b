"""Every error kkdcpd raises on purpose; any other exception is a bug.

KkdcpdError
├── ConfigError               the configuration can't be used: one problem or many
├── RequestError              the client's fault
│   ├── MalformedError        octets that are not what the specification says
│   ├── NoTargetDomainError   [MS-KKDCP] 3.2.5.1, step 2
│   ├── BodyTooLargeError
│   └── BodyTimeoutError
├── LocateError               the realm can't be served
│   ├── RealmNotServedError
│   └── NoKdcKnownError
└── ExchangeError             no reply was had; bears the attempts
    ├── NoKdcReachedError     no KDC took the message: it was never sent
    └── NoKdcReplyError       a KDC has the message but gave no usable reply

Those that can end a request bear its `outcome`. Their text is for the operator's log: it may name internal
addresses and never goes to a client.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kkdcpd.values import AttemptResult, Outcome

__all__ = [
    "BodyTimeoutError",
    "BodyTooLargeError",
    "ConfigError",
    "ConfigProblem",
    "ExchangeError",
    "KkdcpdError",
    "LocateError",
    "MalformedError",
    "NoKdcKnownError",
    "NoKdcReachedError",
    "NoKdcReplyError",
    "NoTargetDomainError",
    "RealmNotServedError",
    "RequestError",
]


class KkdcpdError(Exception):
    """The root of the tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigProblem:
    """One thing wrong in the configuration: the dotted key, what is wrong, what to write instead."""

    key: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}; {self.remedy}"


class ConfigError(KkdcpdError):
    """The configuration can't be used, for each of `problems`."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class RequestError(KkdcpdError):
    """The client's fault."""

    outcome: ClassVar[Outcome]


class MalformedError(RequestError):
    """Octets that are not what the specification says."""

    outcome = Outcome.MALFORMED_MESSAGE


class NoTargetDomainError(RequestError):
    """A client's KDC-PROXY-MESSAGE without target-domain ([MS-KKDCP] 3.2.5.1: ERROR_BAD_FORMAT)."""

    outcome = Outcome.NO_TARGET_DOMAIN


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


class ExchangeError(KkdcpdError):
    """No reply was had from any KDC; `attempts` tells what was tried."""

    outcome: ClassVar[Outcome]

    def __init__(self, attempts: Sequence[AttemptResult]) -> None:
        self.attempts = tuple(attempts)
        super().__init__("; ".join(map(_describe, self.attempts)))


def _describe(result: AttemptResult) -> str:
    reason = result.failure.value if result.failure else "replied"
    return f"{result.attempt.endpoint} {reason}"


class NoKdcReachedError(ExchangeError):
    """No KDC took the message."""

    outcome = Outcome.NO_KDC_REACHED


class NoKdcReplyError(ExchangeError):
    """A KDC has the message, so nobody else may get it, and it gave no usable reply."""

    outcome = Outcome.NO_KDC_REPLY
