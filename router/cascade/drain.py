"""The end of serving: what is under way gets a moment, then it is told so and cut off."""

from __future__ import annotations

import asyncio
from typing import Any


class Drain:
    """What is under way in this process; a context manager around each request.

    ``began``: new requests are turned away. ``over``: what was still under way has been cancelled; whatever is
    cancelled from then on, no client left it.
    """

    def __init__(self) -> None:
        self.began = self.over = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # every request is served in one
        self._tasks.add(task)

    def __exit__(self, *_: object) -> None:
        self._tasks.discard(asyncio.current_task())

    @property
    def idle(self) -> bool:
        return not self._tasks

    def begin(self) -> None:
        self.began = True

    def cut(self) -> None:
        """Cancels what is under way, once."""
        if not self.over:
            self.began = self.over = True
            for task in list(self._tasks):
                task.cancel()
