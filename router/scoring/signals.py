"""The student's own token probabilities, summarised: the best second signal there is.

Quantiles beside the mean, since one hesitant token in a confident answer is what tells a wrong field
or a wrong digit (Gupta et al. 2024, "Language Model Cascades: Token-level Uncertainty and Beyond",
arXiv 2404.10136).
"""

from __future__ import annotations

from collections.abc import Sequence

from router.contracts.records import Signals

FLOOR = -20.0
"""Log-probabilities below this, and such as no number, count as this: e**-20 is as good as never."""


def summarise(logprobs: Sequence[float], complete: bool) -> Signals:
    """Summarises the natural log-probabilities of the tokens seen so far, in their order.

    ``complete``: the whole answer was seen, not only the first tokens of a stream. Without any token
    there is no evidence of confidence, so every summary but the sum stands at ``FLOOR``.
    """
    clean = [(p if p < 0.0 else 0.0) if p > FLOOR else FLOOR for p in logprobs]  # NaN fails the comparison: FLOOR
    if not clean:
        return Signals(
            tokens=0, sum_logprob=0.0, mean_logprob=FLOOR, min_logprob=FLOOR, first_logprob=FLOOR,
            q10_logprob=FLOOR, q25_logprob=FLOOR, q50_logprob=FLOOR, complete=complete,
        )  # fmt: skip
    ordered, total = sorted(clean), sum(clean)
    return Signals(
        tokens=len(clean),
        sum_logprob=total,
        mean_logprob=total / len(clean),
        min_logprob=ordered[0],
        first_logprob=clean[0],
        q10_logprob=_quantile(ordered, 0.10),
        q25_logprob=_quantile(ordered, 0.25),
        q50_logprob=_quantile(ordered, 0.50),
        complete=complete,
    )


def _quantile(ordered: list[float], q: float) -> float:
    """The ``q`` quantile of ascending values, linear between neighbours as numpy's default is; ``q`` < 1."""
    at = q * (len(ordered) - 1)
    low = int(at)
    value = ordered[low]
    return value + (at - low) * (ordered[low + 1] - value) if at > low else value
