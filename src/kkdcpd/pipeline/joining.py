"""Joins copies of a request, so that each message reaches a KDC once, however often a program sends it.

Impatient programs send the same bytes again: by another transport after a second (MIT), from a new port after
each timeout (Java), or from the same port (Heimdal). A way in that serves them directly submits each request
to a `Joiner`. The pipeline serves the first copy. All senders of copies get its answer, and later copies get
the same answer for a while. The rules:

- Copies are equal bytes, whatever transport, port or user they come from.
- The answer is kept if it is the reply of a KDC, or if a KDC may have a message that must not be sent twice
  (`protocol.resending`). A KDC that is not available (KDC_ERR_SVC_UNAVAILABLE) may get the message again.
- Heimdal's kpasswd builds a new request every few seconds, and then ignores the reply to the first. While a
  password change of a client's socket is in flight, a newer one from the same socket is held back. It is
  forwarded only if the first got no reply.
- The client may leave: the exchange goes on, because the client may send a copy and expect the answer.
"""

import asyncio
import hashlib
import os
from abc import abstractmethod
from collections.abc import Hashable
from types import TracebackType
from typing import Protocol, Self

from kkdcpd.frozen import frozen
from kkdcpd.log.events import EventLogger
from kkdcpd.pipeline.pipeline import IncomingRequest, Pipeline
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.resending import is_repeatable
from kkdcpd.values import ClientConnection, MessageKind, Outcome, RequestResult

__all__ = ["Answer", "JoinableRequest", "Joiner", "JoiningLimits", "Sender"]

logger = EventLogger(__name__)

DIGEST_BYTES = 16

ENTRY_BYTES = 1024
"""The memory of a kept answer beside its payload."""


@frozen
class JoiningLimits:
    """The limits of a `Joiner`.

    `keep_seconds` is the time that an answer is kept. `kept_answers` and `kept_bytes` limit all kept answers;
    the oldest are dropped first. `in_flight` limits the exchanges at a time, `senders` the senders of one
    exchange.
    """

    keep_seconds: float = 15.0
    kept_answers: int = 4096
    kept_bytes: int = 16 * 1024 * 1024
    in_flight: int = 1024
    senders: int = 32


@frozen
class Answer:
    """The response to a local program: the Kerberos message, and how the request ended."""

    payload: bytes
    result: RequestResult


class JoinableRequest(IncomingRequest[Answer]):
    """One copy of a request. Its message is complete."""

    __slots__ = ("kerb_message", "kind")

    def __init__(self, client: ClientConnection, kerb_message: bytes, kind: MessageKind | None) -> None:
        super().__init__(client)
        self.kerb_message = kerb_message
        self.kind = kind

    @abstractmethod
    def answer_newer(self, answer: Answer) -> Answer:
        """Return the answer to a newer password change of the same client, after this one got `answer`."""


class Sender(Protocol):
    """The sender of a copy. Equal senders get one answer."""

    @property
    def origin(self) -> Hashable:
        """The client's socket."""
        ...

    def deliver(self, answer: Answer) -> None:
        """Send the answer, if the client is still there."""
        ...

    def dismiss(self) -> None:
        """Take note that no answer will come."""
        ...


class _Exchange:
    """A request that the pipeline serves, or a password change that is held back, with all its senders."""

    __slots__ = ("digest", "newer", "request", "senders")

    def __init__(self, digest: bytes, request: JoinableRequest, sender: Sender) -> None:
        self.digest = digest
        self.request = request
        self.senders = {sender: None}
        self.newer: _Exchange | None = None

    def deliver(self, answer: Answer) -> None:
        for sender in self.senders:
            sender.deliver(answer)

    def dismiss(self) -> None:
        for sender in self.senders:
            sender.dismiss()


@frozen
class _Kept:
    answer: Answer
    request_id: str
    until: float

    @property
    def size(self) -> int:
        return len(self.answer.payload) + ENTRY_BYTES


class Joiner:
    """Serves requests by the pipeline, each message once. It works while its context lasts.

    The end of the context waits for all exchanges. An error within the context cancels them.
    """

    def __init__(self, pipeline: Pipeline, limits: JoiningLimits) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._key = os.urandom(DIGEST_BYTES)
        self._exchanges: dict[bytes, _Exchange] = {}
        self._changes: dict[Hashable, _Exchange] = {}
        self._kept: dict[bytes, _Kept] = {}  # the oldest first
        self._kept_bytes = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._tasks.__aexit__(kind, error, traceback)
        finally:
            if self._expiry:
                self._expiry.cancel()

    def submit(self, request: JoinableRequest, sender: Sender) -> None:
        """Serve a request, or join it with an equal one. The sender gets the answer."""
        digest = hashlib.blake2b(request.kerb_message, digest_size=DIGEST_BYTES, key=self._key).digest()
        if exchange := self._exchanges.get(digest):
            self._join(exchange, sender)
        elif kept := self._kept.get(digest):
            logger.debug("copy_answered", id=kept.request_id, client=request.client.address)
            sender.deliver(kept.answer)
        else:
            self._begin(_Exchange(digest, request, sender), sender.origin)

    def _join(self, exchange: _Exchange, sender: Sender) -> None:
        exchange.request.copies += 1
        if len(exchange.senders) >= self._limits.senders:
            sender.dismiss()
            return
        exchange.senders[sender] = None
        self._note_change(exchange, sender.origin)

    def _begin(self, exchange: _Exchange, origin: Hashable) -> None:
        if (
            exchange.request.kind is MessageKind.KPASSWD_REQ
            and (first := self._changes.get(origin)) is not None
        ):
            self._hold(exchange, first)
        elif len(self._exchanges) >= self._limits.in_flight:
            detail = f"{self._limits.in_flight} requests of local programs are in flight"
            result = RequestResult(outcome=Outcome.OVERLOADED, detail=detail)
            exchange.deliver(self._pipeline.end(exchange.request, result))
        else:
            self._exchanges[exchange.digest] = exchange
            self._note_change(exchange, origin)
            self._start(exchange)

    def _hold(self, exchange: _Exchange, first: _Exchange) -> None:
        """Hold a password change back. Its client has given up the ones before it, but for the first."""
        first.request.copies += 1
        if first.newer:
            del self._exchanges[first.newer.digest]
            first.newer.dismiss()
        first.newer = exchange
        self._exchanges[exchange.digest] = exchange

    def _note_change(self, exchange: _Exchange, origin: Hashable) -> None:
        if exchange.request.kind is MessageKind.KPASSWD_REQ:
            self._changes.setdefault(origin, exchange)

    def _start(self, exchange: _Exchange) -> None:
        self._tasks.create_task(self._serve(exchange), name="local request")

    async def _serve(self, exchange: _Exchange) -> None:
        answer = await self._pipeline.serve(exchange.request)
        try:
            self._end(exchange, answer)
        except Exception as error:
            # A bug. It must not end the exchanges of other programs.
            logger.exception("bug_in_request", sum_by=("bug_in_request", type(error)), id=exchange.request.id)

    def _end(self, exchange: _Exchange, answer: Answer) -> None:
        """Deliver the answer, keep it, and handle the password change that is held back."""
        del self._exchanges[exchange.digest]
        if _is_kept(answer, exchange.request):
            self._keep(exchange.digest, answer, exchange.request.id)
        newer = exchange.newer
        if newer and answer.result.outcome is not Outcome.ANSWERED:
            self._replace(exchange, newer, answer)
            return
        self._forget_change(exchange)
        exchange.deliver(answer)
        if newer:
            del self._exchanges[newer.digest]
            newer.deliver(exchange.request.answer_newer(answer))

    def _replace(self, exchange: _Exchange, newer: _Exchange, answer: Answer) -> None:
        """Forward the newer password change. Its client would take the failure of the first for its end."""
        self._forget_change(exchange)
        origins = {sender.origin for sender in newer.senders}
        for sender in exchange.senders:
            if sender.origin in origins:
                sender.dismiss()
            else:
                sender.deliver(answer)
        for origin in origins:
            self._note_change(newer, origin)
        self._start(newer)

    def _forget_change(self, exchange: _Exchange) -> None:
        for sender in exchange.senders:
            if self._changes.get(sender.origin) is exchange:
                del self._changes[sender.origin]

    def _keep(self, digest: bytes, answer: Answer, request_id: str) -> None:
        loop = asyncio.get_running_loop()
        kept = _Kept(answer=answer, request_id=request_id, until=loop.time() + self._limits.keep_seconds)
        self._kept[digest] = kept
        self._kept_bytes += kept.size
        while len(self._kept) > self._limits.kept_answers or self._kept_bytes > self._limits.kept_bytes:
            self._drop_oldest()
        if self._expiry is None:
            self._expiry = loop.call_at(kept.until, self._expire)

    def _expire(self) -> None:
        """Drop the answers that have been kept for their time."""
        loop = asyncio.get_running_loop()
        while self._kept and (until := next(iter(self._kept.values())).until) <= loop.time():
            self._drop_oldest()
        self._expiry = loop.call_at(until, self._expire) if self._kept else None

    def _drop_oldest(self) -> None:
        self._kept_bytes -= self._kept.pop(next(iter(self._kept))).size


def _is_kept(answer: Answer, request: JoinableRequest) -> bool:
    result = answer.result
    if result.outcome is Outcome.ANSWERED and result.reply:
        return result.reply.facts.error_code != KrbErrorCode.KDC_ERR_SVC_UNAVAILABLE
    return result.may_be_delivered and request.request is not None and not is_repeatable(request.request)
