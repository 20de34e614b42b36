"""The first look at a request: at once where the scorer is quick, beside the event loop where it is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from router.scoring.estimator import Look, Scorer
from router.scoring.features import Features, extract


class Seen(NamedTuple):
    """A request, read once. ``look`` is None without a scorer."""

    features: Features
    look: Look | None


def look_at(body: Mapping[str, Any], scorer: Scorer | None) -> Seen:
    """Reads a parsed chat-completions request, and scores it."""
    features = extract(body)
    return Seen(features, scorer.look(features) if scorer else None)


class Aside:
    """Looks in a thread, one at a time and first come first served: each keeps a core busy, and of several at once
    none is ready sooner, while the event loop waits for its turn among them."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def look_at(self, body: Mapping[str, Any], scorer: Scorer) -> tuple[Seen, bool]:
        """What ``look_at`` gives, and whether the request was cancelled meanwhile: it is seen through all the
        same, so that it can be recorded as any other."""
        looking = asyncio.create_task(self._in_turn(body, scorer))
        try:
            return await asyncio.shield(looking), False
        except asyncio.CancelledError:
            return await looking, True

    async def _in_turn(self, body: Mapping[str, Any], scorer: Scorer) -> Seen:
        async with self._turn:
            return await asyncio.to_thread(look_at, body, scorer)
