"""One answer being generated: what was asked for, and what has come of it so far."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from router.engine.grammar import Grammar
from router.engine.text import Detokenizer, StopScanner

if TYPE_CHECKING:
    import torch

Finish = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """``temperature`` 0 is greedy. ``top`` alternatives are reported with each token. A token's logit is
    lowered by ``presence_penalty`` once it is in the answer, and by ``frequency_penalty`` each time it is."""

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    top: int = 0

    @property
    def penalises(self) -> bool:
        return self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True, slots=True)
class Token:
    """Natural logarithms of the raw model's probability, whatever the sampling: all are <= 0."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new since the last one: of the tokens those whose text has left whole, so none that a stop string took
    away. ``finish`` is set on the last."""

    text: str
    tokens: tuple[Token, ...]
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for. ``prompt`` is token ids; ``stream`` wants deltas as they come, not one at the
    end; ``form`` is this job's own; ``yields`` lets jobs that came later, and do not, begin before it."""

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = Sampling()
    stops: tuple[str, ...] = ()
    stream: bool = False
    form: Grammar | None = None
    yields: bool = False


@dataclass(slots=True)
class BatchRow:
    """A job on its way. ``emit`` is called on the torch thread; ``cancelled`` may be set from any."""

    job: Job
    emit: Callable[[Delta], None]
    detokenizer: Detokenizer
    scanner: StopScanner
    generator: torch.Generator | None = None
    count: int = 0
    last: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    finished: bool = False
    cancelled: bool = False
    since: float = field(default_factory=time.monotonic)
    _text: list[str] = field(default_factory=list)
    _tokens: deque[tuple[Token, int]] = field(default_factory=deque)
    """Those not told yet, each with how many characters the answer had with it."""
    _said: int = 0
    _passed: int = 0

    def push(self, token: Token, *, is_end: bool) -> None:
        """Takes the next token; emits what may leave, and the end where this was it."""
        finish: Finish | None = None
        if is_end:
            finish = self._ended("stop")
        else:
            self._take(token.id)
            piece = self.detokenizer.push(token.id)
            self._said += len(piece)
            self._tokens.append((token, self._said if piece else self._said + 1))
            self._pass(self.scanner.push(piece))
            if self.scanner.stopped:
                finish = "stop"
            elif self.job.form is not None and self.job.form.broken:
                finish = "error"
            elif self.job.form is not None and self.job.form.complete:
                finish = self._ended("stop")
            elif self.count >= self.job.max_tokens:
                finish = self._ended("length")
        self._release(finish)

    def _take(self, token: int) -> None:
        self.count, self.last = self.count + 1, token
        if self.job.sampling.penalises:
            self.counts[token] = self.counts.get(token, 0) + 1
        if self.job.form is not None:
            self.job.form.take(token)

    def _ended(self, finish: Finish) -> Finish:
        """Lets out what was held back."""
        rest = self.detokenizer.flush()
        self._said += len(rest)
        self._pass(self.scanner.push(rest))
        if self.scanner.stopped:
            return "stop"
        self._pass(self.scanner.flush())
        self._passed = self._said + 1  # and tokens without a text
        return finish

    def _pass(self, text: str) -> None:
        self._text.append(text)
        self._passed += len(text)

    def fail(self) -> None:
        self._release("error")

    def _release(self, finish: Finish | None) -> None:
        self.finished = finish is not None
        text = "".join(self._text)
        if finish or (self.job.stream and text):
            told = []
            while self._tokens and self._tokens[0][1] <= self._passed:
                told.append(self._tokens.popleft()[0])
            self._text = []
            self.emit(Delta(text, tuple(told), finish))
