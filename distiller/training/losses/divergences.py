"""How far the student's distribution is from the teacher's: five measures, each with its gradient.

p is the teacher's distribution, q the student's, D a divergence of theirs.

- ``forward``: KL(p||q), which covers all that the teacher might say (Hinton, Vinyals and Dean, "Distilling the
  Knowledge in a Neural Network", 2015).
- ``reverse``: KL(q||p), which keeps to what the teacher surely says (Gu et al., "MiniLLM", 2024).
- ``jsd``: the generalised Jensen-Shannon divergence, β KL(p||m) + (1-β) KL(q||m) with m = βp + (1-β)q, between
  both (Agarwal et al., "On-Policy Distillation of Language Models", 2024, their GKD).
- ``skewed``: KL(p||αp + (1-α)q), whose gradient stays bounded where q is nearly none (Ko et al., "DistiLLM", 2024).
- ``skewed-reverse``: KL(q||αq + (1-α)p), from the same.

With c the derivative of D to q's probabilities, its gradient to the student's logits is q (c - <q, c>).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from router.policy.distillation import DivergenceKind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Divergence:
    """One of the measures above. ``mixed`` is β of ``jsd`` and α of the skewed ones, inside (0, 1)."""

    kind: DivergenceKind = "forward"
    mixed: float = 0.5

    def __call__(self, log_p: Tensor, log_q: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Nats at each position, (positions,), and the gradient to q's logits, (positions, outcomes), where asked for.

        ``log_p``, ``log_q``: (positions, outcomes), normalised and finite; ``log_q`` may be written over.
        """
        if self.kind == "forward":
            p = log_p.exp()
            losses = (p * (log_p - log_q)).sum(-1)
            return losses, log_q.exp_().sub_(p) if gradient else None
        losses, c = _MEASURES[self.kind](log_p, log_q, self.mixed)
        if not gradient:
            return losses, None
        q = log_q.exp_()
        return losses, c.sub_((q * c).sum(-1, keepdim=True)).mul_(q)


def _reverse(log_p: Tensor, log_q: Tensor, mixed: float) -> tuple[Tensor, Tensor]:
    c = log_q - log_p  # its derivative has one more, which <q, c> takes away
    return (log_q.exp() * c).sum(-1), c


def _jsd(log_p: Tensor, log_q: Tensor, mixed: float) -> tuple[Tensor, Tensor]:
    log_m = _mix(log_p, mixed, log_q)
    c = log_q - log_m
    losses = mixed * (log_p.exp() * (log_p - log_m)).sum(-1) + (1 - mixed) * (log_q.exp() * c).sum(-1)
    return losses, c.mul_(1 - mixed)


def _skewed(log_p: Tensor, log_q: Tensor, mixed: float) -> tuple[Tensor, Tensor]:
    log_m = _mix(log_p, mixed, log_q)
    apart = log_p - log_m
    return (log_p.exp() * apart).sum(-1), apart.exp_().mul_(mixed - 1)


def _skewed_reverse(log_p: Tensor, log_q: Tensor, mixed: float) -> tuple[Tensor, Tensor]:
    log_m = _mix(log_q, mixed, log_p)
    apart = log_q - log_m
    losses = (log_q.exp() * apart).sum(-1)
    return losses, apart.sub_(apart.exp().mul_(mixed))


def _mix(log_a: Tensor, share: float, log_b: Tensor) -> Tensor:
    """log(share a + (1 - share) b)."""
    return (log_a + log(share)).logaddexp(log_b + log(1 - share))


_MEASURES: dict[DivergenceKind, Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]] = {
    "reverse": _reverse,
    "jsd": _jsd,
    "skewed": _skewed,
    "skewed-reverse": _skewed_reverse,
}
"""Each gives the losses, (positions,), and c above, (positions, outcomes); forward needs no c."""
