"""Soft labels of which only the likeliest tokens are known, as an API's ``top_logprobs`` or a server's are.

What is not told is a mass without names: 1 less what is. Three ways to take it:

- ``tail``: all tokens without a name are one more outcome. The divergence is that of the two distributions over
  these outcomes; where it is forward KL, the gradient at every named token, and the sum of it over all others, are
  those of the whole distributions. Among the unnamed, the student keeps its own proportions.
- ``sampled``: the named tokens as they are, and for the rest the one token that the teacher drew there, counted
  whole if it has no name and not at all if it has one. In expectation over the teacher's draw this is its whole
  distribution, so the gradient is unbiased: importance sampling with one stratum known exactly, after Anshumann et
  al., "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs", 2025, who draw from all tokens. It holds
  where the teacher drew at temperature 1 from all of them.
- ``truncated``: the named tokens alone, made to sum to 1. This is biased: the student is taught to be surer than the
  teacher, by 1 over the named mass. Here to show just that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distiller.training.losses.cross_entropy import cross_entropy, minus_one_hot
from distiller.training.losses.divergences import Divergence
from distiller.training.losses.fusion import at_least_float32, fused

if TYPE_CHECKING:
    from torch import Tensor

Rest = Literal["tail", "sampled", "truncated"]

_NONE = -80.0
"""The logarithm of a probability that stands for none: e^-80 is still above float32's smallest number."""


@dataclass(frozen=True, slots=True)
class SparseTargets:
    """What is known of a teacher's distribution at each answer position.

    ids: (positions, named), tokens without repetition, -1 where fewer have a name; a position with none is not known
    at all. log_p: (positions, named) nats. drawn: (positions,), whether the answer's token is the teacher's own draw
    at temperature 1.
    """

    ids: Tensor
    log_p: Tensor
    drawn: Tensor

    def __getitem__(self, piece: slice) -> SparseTargets:
        return SparseTargets(self.ids[piece], self.log_p[piece], self.drawn[piece])


def joined(parts: Sequence[tuple[SparseTargets | None, int]], device: str) -> SparseTargets | None:
    """Rows' targets one after another, each with its number of positions; None where nothing is known of any row."""
    import torch

    named = max((known.ids.shape[1] for known, _ in parts if known), default=0)
    if not named:
        return None
    positions = sum(n for _, n in parts)
    ids = torch.full((positions, named), -1, dtype=torch.long)
    log_p, drawn = torch.zeros(positions, named), torch.zeros(positions, dtype=torch.bool)
    first = 0
    for known, n in parts:
        if known:
            ids[first : first + n, : known.ids.shape[1]] = known.ids
            log_p[first : first + n, : known.ids.shape[1]] = known.log_p
            drawn[first : first + n] = known.drawn
        first += n
    return SparseTargets(ids.to(device), log_p.to(device), drawn.to(device))


def sparse_soft_label(
    hidden: Tensor,
    output_weight: Tensor,
    known: SparseTargets,
    targets: Tensor,
    weights: Tensor,
    *,
    divergence: Divergence,
    rest: Rest = "tail",
    mix: float = 0.5,
    chunk: int | None = None,
) -> Tensor:
    """Weighted sum, in nats, of (1 - mix) CE + mix D over the answer positions; CE alone where nothing is known.

    Args:
        hidden: (positions, width). output_weight: (vocabulary, width). targets, weights: (positions,).
        divergence: any measure with ``tail``; the two others are cross-entropies to what they make of the teacher, so
            forward KL up to the teacher's own entropy, whatever is given here.
        rest: what becomes of the mass without names; a position that was not drawn takes ``tail`` for ``sampled``.
        mix: the divergence's share, in [0, 1].
        chunk: positions whose logits exist at once; None: what suits the device.
    """

    def measure(logits: Tensor, piece: slice, gradient: bool) -> tuple[Tensor, Tensor | None]:
        import torch

        log_q = torch.log_softmax(logits, -1, dtype=at_least_float32(logits))  # (positions, vocabulary)
        here, answer = known[piece], targets[piece]
        shares = mix * (here.ids >= 0).any(1).to(log_q)  # (positions,)
        hard = cross_entropy(log_q, answer)
        slope = minus_one_hot(log_q.exp(), answer).mul_((1 - shares)[:, None]) if gradient else None
        soft, soft_slope = _Known(here, answer, divergence, gradient).taken(rest, log_q)
        if slope is not None and soft_slope is not None:
            slope.add_(soft_slope.mul_(shares[:, None]))
        return (1 - shares) * hard + shares * soft, slope

    return fused(hidden, output_weight, weights, measure, chunk)


@dataclass(frozen=True, slots=True)
class _Known:
    """Some positions' losses, (positions,), with their gradients to the logits, (positions, vocabulary).

    Every way takes ``log_q``, (positions, vocabulary), and writes over it.
    """

    known: SparseTargets
    answer: Tensor
    divergence: Divergence
    gradient: bool

    def taken(self, rest: Rest, log_q: Tensor) -> tuple[Tensor, Tensor | None]:
        if rest == "tail":
            return self._tail(log_q)
        named = self.known.ids >= 0
        p = self.known.log_p.to(log_q).exp() * named
        if rest == "truncated":
            p = p / p.sum(-1, keepdim=True).clamp_min(1e-30)
            return self._crossed(log_q, p, p.new_zeros(len(p)))
        drawn = self.known.drawn
        losses, slope = self._crossed(log_q, p, ((self.known.ids != self.answer[:, None]).all(1) & drawn).to(p))
        if bool(drawn.all()):
            return losses, slope
        tail, tail_slope = self._tail(log_q)
        if slope is not None and tail_slope is not None:
            slope = slope.where(drawn[:, None], tail_slope)
        return losses.where(drawn, tail), slope

    def _tail(self, log_q: Tensor) -> tuple[Tensor, Tensor | None]:
        """The divergence over the named tokens and one outcome for all others."""
        import torch

        named = self.known.ids >= 0
        ids = torch.where(named, self.known.ids, self.known.ids[:, :1].clamp_min(0))  # no name: the first again
        log_p = self.known.log_p.to(log_q).masked_fill(~named, _NONE)
        named_q = log_q.gather(1, ids).clamp_min(_NONE).masked_fill(~named, _NONE)
        log_q.scatter_(1, ids, -torch.inf)  # what is left are the tail's
        tail_q = log_q.logsumexp(-1, keepdim=True).clamp_min(_NONE)
        tail_p = torch.log1p(-log_p.exp().sum(-1, keepdim=True).clamp(max=1)).clamp_min(_NONE)
        outcomes = torch.cat([named_q, tail_q], -1)  # (positions, named + 1)
        losses, slopes = self.divergence(torch.cat([log_p, tail_p], -1), outcomes, self.gradient)
        if slopes is None:
            return losses, None
        inside = log_q.sub_(tail_q).exp_()  # each token's share of the tail
        return losses, inside.mul_(slopes[:, -1:]).scatter_add_(1, ids, slopes[:, :-1] * named)

    def _crossed(self, log_q: Tensor, p: Tensor, extra: Tensor) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy to the named tokens at ``p``, (positions, named), and the answer at ``extra``, (positions,)."""
        ids, answer = self.known.ids.clamp_min(0), self.answer[:, None]
        losses = extra * cross_entropy(log_q, self.answer) - (p * log_q.gather(1, ids)).sum(-1)
        if not self.gradient:
            return losses, None
        slope = log_q.exp().mul_((p.sum(-1) + extra)[:, None])
        return losses, slope.scatter_add_(1, ids, -p).scatter_add_(1, answer, -extra[:, None])
