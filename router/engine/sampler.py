"""Choosing the next token of every row of a batch, and what the model thought of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from router.engine.generation import BatchRow, Sampling, Token

if TYPE_CHECKING:
    import torch


def generator_for(sampling: Sampling, device: torch.device) -> torch.Generator | None:
    """A generator of the row's own, so that its draws don't depend on who shares the batch."""
    import torch

    if sampling.temperature == 0:
        return None
    generator = torch.Generator(device=device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def pick(logits: torch.Tensor, rows: Sequence[BatchRow]) -> list[Token]:
    """One token a row. ``logits``: float32 (rows, vocabulary)."""
    import torch

    ids = logits.argmax(dim=-1)
    for i, row in enumerate(rows):
        if row.generator is not None or row.counts or row.job.form is not None:
            ids[i] = _chosen(logits[i], row)
    log_z = torch.logsumexp(logits, dim=-1)
    chosen = (logits.gather(1, ids[:, None])[:, 0] - log_z).clamp(max=0).tolist()
    widest = max(row.job.sampling.top for row in rows)
    tops: list[tuple[tuple[int, float], ...]] = [()] * len(rows)
    if widest:
        values, indices = logits.topk(widest, dim=-1)
        pairs = zip(indices.tolist(), (values - log_z[:, None]).clamp(max=0).tolist(), strict=True)
        tops = [tuple(zip(i, v, strict=True))[: row.job.sampling.top] for row, (i, v) in zip(rows, pairs, strict=True)]
    return [Token(i, p, top) for i, p, top in zip(ids.tolist(), chosen, tops, strict=True)]


def _chosen(logits: torch.Tensor, row: BatchRow) -> torch.Tensor:
    """One token id from (vocabulary,) logits, as the row's job wants it chosen."""
    import torch

    sampling = row.job.sampling
    if row.counts:
        seen = torch.tensor(list(row.counts), device=logits.device)
        times = torch.tensor(list(row.counts.values()), device=logits.device, dtype=logits.dtype)
        logits = logits.index_add(0, seen, -(sampling.presence_penalty + sampling.frequency_penalty * times))
    if row.job.form is not None:
        logits = row.job.form.leave(logits)
    return logits.argmax() if row.generator is None else _draw(logits, sampling, row.generator)


def _draw(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> torch.Tensor:
    """One token id from (vocabulary,) logits, by inverting the cumulative distribution of the nucleus."""
    import torch

    values, indices = torch.sort(logits / sampling.temperature, descending=True)
    cumulative = values.softmax(dim=-1).cumsum(dim=-1)
    inside = int(torch.searchsorted(cumulative, torch.tensor(sampling.top_p, device=logits.device)))
    mass = cumulative[min(inside, len(cumulative) - 1)]
    at = torch.rand((), generator=generator, device=logits.device) * mass
    return indices[min(int(torch.searchsorted(cumulative, at)), len(cumulative) - 1)]
