"""Work whose length a client or a model server chooses: where there is much of it, beside the event loop.

Small work is done at once, as a thread costs more than it. Large work has one thread for all: each piece of it keeps a
core busy, and of several at once none would be ready sooner, while the event loop waited for its turn among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

LARGE_BYTES = 2**18
UNMEASURED = LARGE_BYTES + 1
"""The size of what nobody waits for, and which it is not worth to measure."""

_THREAD = ThreadPoolExecutor(1, thread_name_prefix="locum-aside")

T = TypeVar("T")


async def aside(work: Callable[[], T], size: int) -> T:
    """What ``work`` gives, which takes as long as ``size`` bytes take. Raises what it raises."""
    if size <= LARGE_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work)


async def to_its_end(work: Callable[[], T], size: int) -> tuple[T, bool]:
    """The same, and whether the task was cancelled meanwhile: the work is seen through, since a record hangs on it."""
    if size <= LARGE_BYTES:
        return work(), False
    working = asyncio.get_running_loop().run_in_executor(_THREAD, work)
    try:
        return await asyncio.shield(working), False
    except asyncio.CancelledError:
        return await working, True
