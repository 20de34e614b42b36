"""Rows to tokens to tensors: which rows make a step, and how a step is computed in few, full passes.

Prompts of one application begin alike (the template's head, the system prompt). A causal model
sees that beginning the same in every row, so a pass computes it once and lets all its rows attend
to it; the gradient is the same as if each row had carried it. Rows of like length sit together, so
that little is padded.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distiller.data.rows import Row
from distiller.training.losses.sparse import SparseTargets, joined

if TYPE_CHECKING:
    from torch import Tensor

SHORTEST_PREFIX = 8
"""Tokens that rows must share before computing them apart is worth a pass."""

_FEWEST_ALIKE = 4
_BUCKET_STEPS = 8
_SENTINEL = "locum"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row as tokens: the prompt's, then from ``start`` on the answer's with its end of turn.

    ``known``: what a teacher's likeliest tokens are at each of the answer's positions, where that was recorded.
    """

    tokens: tuple[int, ...]
    start: int
    weight: float
    known: SparseTargets | None = field(default=None, compare=False)

    @property
    def answer_tokens(self) -> int:
        return len(self.tokens) - self.start


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass. ``real_tokens`` is what the rows hold, shared prefixes counted in each row.

    prefix: (1, shared) token ids, or None. tokens: (rows, length) ids after the prefix, padded on
    the right. at: (answer positions,) indices into the flattened (rows * length) outputs whose next
    token is an answer's. targets, weights: (answer positions,). known: what is known of a teacher's distribution at
    the answer positions, None where it is of no row.
    """

    prefix: Tensor | None
    tokens: Tensor
    at: Tensor
    targets: Tensor
    weights: Tensor
    real_tokens: int
    known: SparseTargets | None = None


def encode(rows: Iterable[Row], tokenizer: Any, max_tokens: int) -> tuple[list[Encoded], int]:
    """Tokenised rows by the tokenizer's chat template, and how many were left out as too long."""
    end = end_of_turn(tokenizer)
    encoded, left_out = [], 0
    for row in rows:
        text = tokenizer.apply_chat_template(row.messages, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = tokenizer(row.answer, add_special_tokens=False)["input_ids"]
        tokens = (*prompt, *answer, end)
        if len(tokens) > max_tokens:
            left_out += 1
        else:
            encoded.append(Encoded(tokens, len(prompt), row.weight))
    return encoded, left_out


def end_of_turn(tokenizer: Any) -> int:
    """The token that the chat template puts behind an assistant's answer; the tokenizer's end where it puts none."""
    turns = [{"role": "user", "content": _SENTINEL}, {"role": "assistant", "content": _SENTINEL}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    after = tokenizer(text.rsplit(_SENTINEL, 1)[1].lstrip(), add_special_tokens=False)["input_ids"]
    return int(after[0] if after else tokenizer.eos_token_id)


def plan(rows: Sequence[Encoded], epochs: float, batch_size: int, seed: int) -> list[list[int]]:
    """The rows' indices of every step of the run, in order; the same seed gives the same plan.

    Each epoch is shuffled, then sorted by length within stretches of a few steps, so that a step's
    rows are alike in length and still vary between epochs. The last epoch may be a part.
    """
    drawn = random.Random(seed)
    wanted = max(1, round(epochs * len(rows) / batch_size))
    steps: list[list[int]] = []
    while len(steps) < wanted:
        order = drawn.sample(range(len(rows)), len(rows))
        stretch = batch_size * _BUCKET_STEPS
        epoch: list[list[int]] = []
        for first in range(0, len(order), stretch):
            bucket = sorted(order[first : first + stretch], key=lambda i: len(rows[i].tokens))
            epoch += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
        drawn.shuffle(epoch)
        steps += epoch
    return steps[:wanted]


def passes(rows: Sequence[Encoded], tokens_per_pass: int, device: str) -> Iterator[Pass]:
    """The step's rows in passes of at most ``tokens_per_pass`` padded tokens (a longer row goes alone)."""
    for group in _alike(rows):
        waiting: list[Encoded] = []
        for row in sorted(group, key=lambda r: len(r.tokens)):
            if waiting and (len(waiting) + 1) * len(row.tokens) > tokens_per_pass:
                yield tensors(waiting, device)
                waiting = []
            waiting.append(row)
        yield tensors(waiting, device)


def tensors(rows: Sequence[Encoded], device: str, share: bool = True) -> Pass:
    """One pass over these rows; ``share`` False computes every row's beginning for itself."""
    import torch  # noqa: PLC0415  (heavy)

    shared = shared_prefix(rows) if share else 0
    length = max(len(r.tokens) for r in rows) - shared
    tokens = torch.zeros(len(rows), length, dtype=torch.long)  # (rows, length)
    at: list[int] = []
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens) - shared] = torch.tensor(row.tokens[shared:])
        at += range(i * length + row.start - shared - 1, i * length + len(row.tokens) - shared - 1)
    return Pass(
        prefix=torch.tensor([rows[0].tokens[:shared]], device=device) if shared else None,
        tokens=tokens.to(device),
        at=torch.tensor(at, device=device),
        targets=torch.tensor([t for r in rows for t in r.tokens[r.start :]], device=device),
        weights=torch.tensor([r.weight for r in rows for _ in range(r.answer_tokens)], device=device),
        real_tokens=sum(len(r.tokens) for r in rows),
        known=joined([(r.known, r.answer_tokens) for r in rows], device),
    )


def shared_prefix(rows: Sequence[Encoded]) -> int:
    """How many first tokens all rows share, leaving each at least its prompt's last one; 0 below the shortest."""
    if len(rows) < 2:
        return 0
    limit = min(r.start for r in rows) - 1
    first, last = min(r.tokens for r in rows), max(r.tokens for r in rows)
    shared = next((i for i in range(limit) if first[i] != last[i]), max(limit, 0))
    return shared if shared >= SHORTEST_PREFIX else 0


def _alike(rows: Sequence[Encoded]) -> list[list[Encoded]]:
    """Rows that begin alike together, where there are enough of them; all others in one group."""
    groups: dict[tuple[int, ...], list[Encoded]] = {}
    for row in rows:
        groups.setdefault(row.tokens[: 2 * SHORTEST_PREFIX], []).append(row)
    large = [g for g in groups.values() if len(g) >= _FEWEST_ALIKE]
    rest = [row for g in groups.values() if len(g) < _FEWEST_ALIKE for row in g]
    return [*large, rest] if rest else large
