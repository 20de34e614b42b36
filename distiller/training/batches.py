"""Rows to tokens to tensors: which rows make a step, and how a step is computed in few, full passes.

Prompts of one application begin alike (the template's head, the system prompt). A causal model
sees that beginning the same in every row, so a pass computes it once and lets all its rows attend
to it; the gradient is the same as if each row had carried it. Other rows of like length sit together,
so that little is padded. A GPU is quicker with rows one behind the other, in passes of one shape (``shapes``).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from distiller.data.rows import DatasetRow, Skip
from distiller.training.losses.sparse_labels import SparseTargets, joined
from router.engine.template import PromptTemplate

if TYPE_CHECKING:
    from torch import Tensor

SHORTEST_PREFIX = 8
"""Tokens that rows must share before computing them apart is worth a pass."""

_FEWEST_ALIKE = 4
_BUCKET_STEPS = 8
_SENTINEL = "locum"


@dataclass(frozen=True, slots=True)
class EncodedRow:
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
class Documents:
    """Where packed rows begin. positions: (1, length), each row's from 0. starts: (rows + 1,) int32, the end too; what
    is behind it is the end again."""

    positions: Tensor
    starts: Tensor
    longest: int


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass. ``real_tokens`` is what the rows hold, shared prefixes counted in each row.

    prefix: (1, shared) token ids, or None. tokens: (rows, length) ids after the prefix, padded on
    the right; of packed rows (1, length), and ``documents`` says where each begins. at: (answer
    positions,) indices into the flattened (rows * length) outputs whose next token is an answer's.
    targets, weights: (answer positions,). known: what is known of a teacher's distribution at the
    answer positions, None where it is of no row.
    """

    prefix: Tensor | None
    tokens: Tensor
    at: Tensor
    targets: Tensor
    weights: Tensor
    real_tokens: int
    documents: Documents | None = None
    known: SparseTargets | None = None


def encode(
    rows: Iterable[DatasetRow], prompts: PromptTemplate, max_tokens: int
) -> tuple[list[EncodedRow], Counter[Skip]]:
    """Tokenised rows by the student's chat template, and how many were left out for which reason: a row that the
    template refuses costs itself alone, since such a request the student is never asked."""
    end = end_of_turn(prompts.tokenizer)
    encoded: list[EncodedRow] = []
    left_out: Counter[Skip] = Counter()
    for row in rows:
        if (refused := row.refused_by(prompts)) is not None:
            left_out[refused] += 1
            continue
        prompt = prompts.prompt(row.messages, row.tools)
        tokens = (*prompt, *prompts.answer(row.answer, row.calls), end)
        if len(tokens) > max_tokens:
            left_out[Skip.TOO_LONG] += 1
        else:
            encoded.append(EncodedRow(tokens, len(prompt), row.weight))
    return encoded, left_out


def end_of_turn(tokenizer: Any) -> int:
    """The token that the chat template puts behind an assistant's answer; the tokenizer's end where it puts none."""
    turns = [{"role": "user", "content": _SENTINEL}, {"role": "assistant", "content": _SENTINEL}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    after = tokenizer(text.rsplit(_SENTINEL, 1)[1].lstrip(), add_special_tokens=False)["input_ids"]
    return int(after[0] if after else tokenizer.eos_token_id)


def plan(
    rows: Sequence[EncodedRow], epochs: float, batch_size: int, seed: int, by_length: bool = True
) -> list[list[int]]:
    """The rows' indices of every step of the run, in order; the same seed gives the same plan.

    Each epoch is shuffled, then sorted ``by_length`` within stretches of a few steps, so that a step's
    rows are alike in length and still vary between epochs; else all steps are about as long. The last epoch may be a
    part.
    """
    drawn = random.Random(seed)
    wanted = max(1, round(epochs * len(rows) / batch_size))
    steps: list[list[int]] = []
    while len(steps) < wanted:
        order = drawn.sample(range(len(rows)), len(rows))
        stretch = batch_size * _BUCKET_STEPS
        epoch: list[list[int]] = []
        for first in range(0, len(order), stretch):
            bucket = order[first : first + stretch]
            if by_length:
                bucket.sort(key=lambda i: len(rows[i].tokens))
            epoch += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
        drawn.shuffle(epoch)
        steps += epoch
    return steps[:wanted]


def passes(rows: Sequence[EncodedRow], tokens_per_pass: int, device: str, sharing: bool = True) -> Iterator[Pass]:
    """The step's rows in passes of at most ``tokens_per_pass`` computed tokens (a longer row goes alone).

    ``sharing``: compute what rows begin with once.
    """
    for group in _alike(rows) if sharing else [list(rows)]:
        waiting: list[EncodedRow] = []
        for row in sorted(group, key=lambda r: len(r.tokens)):
            if waiting and (len(waiting) + 1) * len(row.tokens) > tokens_per_pass:
                yield tensors(waiting, device, sharing)
                waiting = []
            waiting.append(row)
        yield tensors(waiting, device, sharing)


def tensors(rows: Sequence[EncodedRow], device: str, share: bool = True) -> Pass:
    """One pass over these rows; ``share`` False computes every row's beginning for itself."""
    shared = shared_prefix(rows) if share else 0
    length = max(len(r.tokens) for r in rows) - shared
    tokens = [[*r.tokens[shared:], *[0] * (length - len(r.tokens) + shared)] for r in rows]  # (rows, length)
    firsts = [i * length - shared for i in range(len(rows))]
    return _pass(rows, firsts, tokens, device, rows[0].tokens[:shared])


def idle(row: EncodedRow, device: str, shared: bool) -> Pass:
    """A pass of the kind asked for, over a row that counts for nothing: for a process that has no such pass itself."""
    row = replace(row, weight=0.0)
    return _pass([row], [-1], [row.tokens[1:]], device, row.tokens[:1]) if shared else tensors([row], device)


def _pass(
    rows: Sequence[EncodedRow],
    firsts: Sequence[int],
    tokens: Sequence[Sequence[int]],
    device: str,
    prefix: Sequence[int],
) -> Pass:
    """``firsts``: where each row's first token is, or would be, among the flattened outputs."""
    ends = [first + len(row.tokens) - 1 for first, row in zip(firsts, rows, strict=True)]
    at = [i for end, row in zip(ends, rows, strict=True) for i in range(end - row.answer_tokens, end)]
    return Pass(
        prefix=_there([prefix], device) if prefix else None,
        tokens=_there(tokens, device),
        at=_there(at, device),
        targets=_there([t for r in rows for t in r.tokens[r.start :]], device),
        weights=_there([r.weight for r in rows for _ in range(r.answer_tokens)], device),
        real_tokens=sum(len(r.tokens) for r in rows),
        known=joined([(r.known, r.answer_tokens) for r in rows], device),
    )


def _there(values: Sequence[Any], device: str) -> Tensor:
    """The values as a tensor on the device, without waiting for a GPU to have them."""
    import torch

    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor.to(device)


def shared_prefix(rows: Sequence[EncodedRow]) -> int:
    """How many first tokens all rows share, leaving each at least its prompt's last one; 0 below the shortest."""
    if len(rows) < 2:
        return 0
    limit = min(r.start for r in rows) - 1
    first, last = min(r.tokens for r in rows), max(r.tokens for r in rows)
    shared = next((i for i in range(limit) if first[i] != last[i]), max(limit, 0))
    return shared if shared >= SHORTEST_PREFIX else 0


def _alike(rows: Sequence[EncodedRow]) -> list[list[EncodedRow]]:
    """Rows that begin alike together, where there are enough of them; all others in one group."""
    groups: dict[tuple[int, ...], list[EncodedRow]] = {}
    for row in rows:
        groups.setdefault(row.tokens[: 2 * SHORTEST_PREFIX], []).append(row)
    large = [g for g in groups.values() if len(g) >= _FEWEST_ALIKE]
    rest = [row for g in groups.values() if len(g) < _FEWEST_ALIKE for row in g]
    return [*large, rest] if rest else large
