"""What a judge is: a row of ``JUDGES`` (``router.judges.judge``) makes one from a policy's settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from router.judges.pair import Message, Pair, Verdict
from router.policy.judges import Llm
from router.wire.threads import aside


@dataclass(frozen=True, slots=True)
class ModelReply:
    """A model's reply, and what it cost in US dollars, ``estimated`` where nobody says."""

    text: str
    usd: Decimal
    estimated: bool = False


Complete = Callable[[Llm, Mapping[str, Any]], Awaitable[ModelReply]]
"""(judge, a request's body without its model) -> what the model says. Raises JudgeError where it says nothing."""


class TextEncoder(Protocol):
    """What the semantic judge reads text with (``router.scoring.text.encoder.Encoder``)."""

    def encode(self, text: str) -> npt.NDArray[np.float32]:
        """float32, (dim,), of length one; zeros for a text that says nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What judges ask with. ``complete``: a language model's reply, None where none can be asked; ``dearest``: what
    one to a request's body can cost at most, in US dollars; ``encoder``: loads what text is read with."""

    complete: Complete | None = None
    dearest: Callable[[Llm, Mapping[str, Any]], Decimal] = lambda *_: Decimal(0)
    encoder: Callable[[], TextEncoder | None] = lambda: None


class PairJudge:
    """One judge, with its settings. Most need but ``now``: the rest is so for what is ours, free, and at once.

    ``immediate``: ``now`` always has a verdict, and at once: nothing is asked, loaded or run that is not ours;
    ``absolute``: it may know of an answer that it is wrong without comparing it with another; ``sees_calls``: it judges
    answers that call tools too, which else are compared by their calls; ``says_same``: its verdict on two answers of
    one tier says whether they say the same; ``closed``: the answers that there are, are known.
    """

    immediate = True
    absolute = False
    sees_calls = False
    says_same = True

    @property
    def closed(self) -> bool:
        return False

    def outside(self, answer: Message) -> bool:
        """Whether an answer is surely none of those that there are."""
        return False

    def learn(self, teacher: Message) -> None:
        """Takes a teacher's answer into account before anything is judged."""

    def dearest_usd(self, pair: Pair) -> Decimal:
        """What ``verdict`` can cost at most where ``now`` has none, in US dollars."""
        return Decimal(0)

    def now(self, pair: Pair) -> Verdict | None:
        """The verdict; None where a language model must be asked for it. Raises JudgeError."""
        return Verdict(None)

    async def verdict(self, pair: Pair) -> Verdict:
        """The verdict, whoever must be asked. Raises JudgeError."""
        return await aside(partial(self.now, pair), pair.size) or Verdict(None)
