"""Closeness in meaning: the cosine of both texts, as the static encoder reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from router.errors import EngineError, JudgeError
from router.judges.base import PairJudge, TextEncoder
from router.judges.pair import Pair, Verdict, text
from router.wire.threads import aside


class SemanticJudge(PairJudge):
    """``encoder`` is called beside the event loop where there is one, and loads once."""

    immediate = False

    def __init__(self, at_least: float, encoder: Callable[[], TextEncoder | None]) -> None:
        self._at_least, self._load = at_least, encoder

    def now(self, pair: Pair) -> Verdict:
        a, b = (self._encoder().encode(text(message)) for message in (pair.student, pair.teacher))
        return Verdict(float(a @ b) >= self._at_least)

    async def verdict(self, pair: Pair) -> Verdict:
        await asyncio.to_thread(self._encoder)
        return await aside(partial(self.now, pair), pair.size)

    def _encoder(self) -> TextEncoder:
        try:
            encoder = self._load()
        except EngineError as e:
            raise JudgeError(f"the semantic judge has no encoder: {e}") from e
        if encoder is None:
            raise JudgeError("the semantic judge has no encoder")
        return encoder
