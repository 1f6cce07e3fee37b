"""Runs a part of an attack in a separate thread."""

import threading
from types import TracebackType
from typing import Self

__all__ = ["Background"]


class Background:
    """Works in a thread while its context lasts. The work of a subclass ends when `_is_over` is set."""

    def __init__(self, name: str) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work_until_over, name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _work_until_over(self) -> None:
        raise NotImplementedError
