"""Passes of one shape: rows one behind the other, filled up to what every pass of the run has.

A compiled layer is compiled for the sizes that it first sees, and a recorded pass can only be played again as it was.
So on a GPU each pass has as many tokens, rows and answer positions as any other: what is missing is made up by rows of
padding, no longer than real ones may be, that nothing is learnt from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from distiller.training.batches import Documents, EncodedRow, Pass
from distiller.training.losses.sparse_labels import joined

if TYPE_CHECKING:
    from torch import Tensor

ALIGNED = 256
"""Tokens that a pass's length is a multiple of, where it may be: what a GPU's tiles divide."""

OVERHEAD = 1024
"""What a pass costs beside its tokens' (gradients added up, kernels started), in tokens."""

_SPLITS, _TRIED_STEPS = 8, 200


@dataclass(frozen=True, slots=True)
class PassShape:
    """What a pass is filled up to. documents: rows, those of padding among them. longest: tokens of a row, at most."""

    tokens: int
    documents: int
    answers: int
    longest: int

    def holds(self, rows: Sequence[EncodedRow]) -> bool:
        """Whether each of the rows fits into such a pass."""
        return all(len(r.tokens) <= self.longest and r.answer_tokens <= self.answers for r in rows)

    def grown(self, rows: Sequence[EncodedRow]) -> PassShape:
        """One that holds them: what is too small is doubled, so that a run's shapes are few."""
        longest, answers = self.longest, self.answers
        while longest < max(len(r.tokens) for r in rows):
            longest *= 2
        while answers < max(r.answer_tokens for r in rows):
            answers *= 2
        tokens = max(self.tokens, longest)
        return PassShape(tokens, max(self.documents, _padding(tokens, longest) + 1), answers, longest)


def fitting(steps: Sequence[Sequence[EncodedRow]], tokens_per_pass: int) -> PassShape:
    """The shape in which these steps' rows cost least, of at most so many tokens (a longer row's, if there is one)."""
    lengths = [[len(r.tokens) for r in rows] for rows in steps[:: 1 + len(steps) // _TRIED_STEPS]]
    most, row = max(map(sum, lengths)), max(len(r.tokens) for rows in steps for r in rows)
    at_most = max(tokens_per_pass, row)
    longest = min(_up(row, 64), at_most)
    fewest = -(-most // at_most)
    lengths_of = {
        max(longest, min(at_most, _up(most // n + spare, ALIGNED)))
        for n in range(fewest, fewest + _SPLITS)
        for spare in (0, longest)
    }
    tokens = min(sorted(lengths_of), key=lambda n: (n + OVERHEAD) * sum(_count(step, n) for step in lengths))
    roomy = PassShape(tokens, 2**31, 2**31, longest)
    made = [part for rows in steps for part in cut(rows, roomy)]
    documents = max(len(p) + _padding(tokens - sum(len(r.tokens) for r in p), longest) for p in made)
    answers = max(sum(r.answer_tokens for r in p) for p in made)
    return PassShape(tokens, _up(max(documents, _padding(tokens, longest) + 1), 8), _up(answers, 64), longest)


def cut(rows: Iterable[EncodedRow], shape: PassShape) -> Iterator[list[EncodedRow]]:
    """The rows in their order, in as few passes of this shape as that order allows."""
    waiting: list[EncodedRow] = []
    tokens = answers = 0
    for row in rows:
        tokens, answers = tokens + len(row.tokens), answers + row.answer_tokens
        documents = len(waiting) + 1 + _padding(shape.tokens - tokens, shape.longest)
        if waiting and (tokens > shape.tokens or answers > shape.answers or documents > shape.documents):
            yield waiting
            waiting, tokens, answers = [], len(row.tokens), row.answer_tokens
        waiting.append(row)
    if waiting:
        yield waiting


def filled(rows: Sequence[EncodedRow], shape: PassShape, device: str) -> Pass:
    """One pass over these rows, filled up; attention ends where a row does."""
    import numpy as np

    lengths = [len(r.tokens) for r in rows]
    real, answers = sum(lengths), sum(r.answer_tokens for r in rows)
    lengths += [min(shape.longest, shape.tokens - at) for at in range(real, shape.tokens, shape.longest)]
    starts = np.full(shape.documents + 1, shape.tokens, np.int32)
    starts[: len(lengths)] = np.cumsum([0, *lengths[:-1]])
    tokens = np.zeros((1, shape.tokens), np.int64)
    tokens[0, :real] = np.fromiter(chain.from_iterable(r.tokens for r in rows), np.int64, real)
    at, targets = (np.full(shape.answers, value, np.int64) for value in (shape.tokens - 1, 0))
    at[:answers] = np.concatenate(
        [np.arange(s + r.start - 1, s + len(r.tokens) - 1) for s, r in zip(starts, rows, strict=False)]
    )
    targets[:answers] = tokens[0, at[:answers] + 1]
    weights = np.zeros(shape.answers, np.float32)
    weights[:answers] = np.repeat([r.weight for r in rows], [r.answer_tokens for r in rows])
    positions = np.arange(shape.tokens) - np.repeat(starts[: len(lengths)], lengths)
    known = [(r.known, r.answer_tokens) for r in rows]
    return Pass(
        prefix=None,
        tokens=_there(tokens, device),
        at=_there(at, device),
        targets=_there(targets, device),
        weights=_there(weights, device),
        real_tokens=real,
        documents=Documents(_there(positions[None], device), _there(starts, device), shape.longest),
        known=joined([*known, (None, shape.answers - answers)], device),
    )


def idle(row: EncodedRow, shape: PassShape, device: str) -> Pass:
    """A pass over a row that counts for nothing: for a process that has none itself."""
    return filled([replace(row, weight=0.0)], shape, device)


def _count(lengths: Sequence[int], tokens: int) -> int:
    """How many passes the rows take."""
    passes, room = 0, 0
    for length in lengths:
        if length > room:
            passes, room = passes + 1, tokens
        room -= length
    return passes


def _padding(tokens: int, longest: int) -> int:
    """How many rows so much padding is."""
    return -(-max(tokens, 0) // longest)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _there(values: Any, device: str) -> Tensor:
    """The array as a tensor on the device, without waiting for a GPU to have it."""
    import torch

    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor.to(device)
