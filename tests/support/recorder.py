"""Records the events of an attempt in a queue."""

import asyncio

from kkdcpd.protocol.resending import NO_FACTS
from kkdcpd.values import Attempt, FailureFacts, FailureReason

__all__ = ["EventRecorder"]

PATIENCE_SECONDS = 10.0


class EventRecorder:
    """An `AttemptEvents` that puts each event into a queue."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[str | bytes] = asyncio.Queue()

    def connected(self, attempt: Attempt) -> None:
        del attempt
        self._events.put_nowait("connected")

    def received(self, attempt: Attempt, payload: bytes) -> None:
        del attempt
        self._events.put_nowait(payload)

    def failed(self, attempt: Attempt, reason: FailureReason, facts: FailureFacts = NO_FACTS) -> None:
        del attempt, facts
        self._events.put_nowait(reason.value)

    async def next(self) -> str | bytes:
        """Return the next event: `connected`, a payload, or the reason of a failure."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._events.get()

    @property
    def is_quiet(self) -> bool:
        """Whether no event is left in the queue."""
        return self._events.empty()
