"""Runs a part of an attack in a thread of its own."""

import threading
from types import TracebackType
from typing import Self

__all__ = ["Background"]


class Background:
    """Works in a thread for as long as its context lasts. A subclass says how, and looks at `_is_over`."""

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
