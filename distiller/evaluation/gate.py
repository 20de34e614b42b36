"""Promote only what is proven no worse: a paired test on the frozen holdout, overall and on every slice.

Pure: values in, a verdict with its reasons out. A row is one audited request that both students
answered. The bound is Tango's score interval for the difference of two paired proportions (T. Tango,
"Equivalence test and confidence interval for the difference in proportions for the paired-sample
design", Statistics in Medicine 17, 1998), which stays honest where few rows, or none, differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

OVERALL = "overall"


@dataclass(frozen=True, slots=True)
class GateConfig:
    """``margin``: the loss of acceptable rate that still counts as no loss, shown at ``confidence``.

    ``min_slice`` is the smallest slice that may veto. ``power``: a slice too small to resolve the
    margin is judged at the smallest margin that it can resolve, so that an equal student passes it
    with this probability; such a slice vetoes real harm, and never by chance of its size alone.
    """

    margin: float = 0.02
    confidence: float = 0.95
    min_slice: int = 50
    power: float = 0.99


@dataclass(frozen=True, slots=True)
class Outcome:
    """One holdout row: was each student's answer acceptable? ``slices`` names the groups it is in.

    ``incumbent`` is None where there is no incumbent's answer; such rows are not compared.
    """

    request_id: str
    candidate: bool
    incumbent: bool | None = None
    slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SliceVerdict:
    """One paired comparison. Rates are acceptable answers over ``n`` rows; ``lower_bound`` and ``margin``
    are differences of rates, candidate less incumbent and incumbent less candidate."""

    name: str
    n: int
    candidate: float
    incumbent: float
    lower_bound: float
    margin: float
    passed: bool

    def __str__(self) -> str:
        relation = ">=" if self.passed else "<"
        name = self.name if self.name == OVERALL else f"slice {self.name}"
        return (
            f"{name}: {self.incumbent:.2f} -> {self.candidate:.2f}, n={self.n}, "
            f"lower bound {self.lower_bound:+.3f} {relation} {-self.margin:+.3f}"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reasons`` are the sentences a user reads: what failed, or why it passed."""

    promoted: bool
    reasons: tuple[str, ...]
    slices: tuple[SliceVerdict, ...]
    candidate_share: float
    incumbent_share: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)


def judge(
    outcomes: Sequence[Outcome],
    candidate_share: float,
    incumbent_share: float,
    config: GateConfig = GateConfig(),
) -> Verdict:
    """Promotes a candidate that is non-inferior overall and on every large slice, and better or cheaper.

    Args:
        outcomes: the holdout's rows, each judged for both students.
        candidate_share, incumbent_share: expected student share, each at its own thresholds for the
            same target on the same rows; the larger one is the cheaper.
    """
    pairs = [o for o in outcomes if o.incumbent is not None]
    if not pairs:
        return _without_incumbent(outcomes, candidate_share, incumbent_share, config)
    overall = _compare(OVERALL, pairs, config, widen=False)
    names = sorted({s for o in pairs for s in o.slices})
    groups = [(name, [o for o in pairs if name in o.slices]) for name in names]
    slices = [_compare(name, rows, config, widen=True) for name, rows in groups if len(rows) >= config.min_slice]
    failed = [str(v) for v in [overall, *slices] if not v.passed]
    gain, why = _gain(overall, candidate_share, incumbent_share, config)
    reasons = failed + ([] if gain else [why])
    return Verdict(
        promoted=not reasons,
        reasons=tuple(reasons or [str(overall), why]),
        slices=(overall, *slices),
        candidate_share=candidate_share,
        incumbent_share=incumbent_share,
    )


def _without_incumbent(
    outcomes: Sequence[Outcome], candidate_share: float, incumbent_share: float, config: GateConfig
) -> Verdict:
    """Nothing to be inferior to: enough rows must still exist, and some answers must be acceptable."""
    good = sum(o.candidate for o in outcomes)
    enough = len(outcomes) >= config.min_slice
    reason = (
        f"no incumbent to compare with: {good} of {len(outcomes)} holdout answers acceptable"
        if enough
        else f"only {len(outcomes)} audited holdout rows; at least {config.min_slice} are needed to judge"
    )
    return Verdict(enough and good > 0, (reason,), (), candidate_share, incumbent_share)


def _gain(
    overall: SliceVerdict, candidate_share: float, incumbent_share: float, config: GateConfig
) -> tuple[bool, str]:
    """Better or cheaper overall? A proven gain in quality may cost the margin in share: it is an estimate."""
    shares = f"student share at the target {incumbent_share:.1%} -> {candidate_share:.1%}"
    rates = f"acceptable {overall.incumbent:.1%} -> {overall.candidate:.1%}"
    if candidate_share > incumbent_share:
        return True, f"cheaper: {shares}"
    if candidate_share == incumbent_share and overall.candidate > overall.incumbent:
        return True, f"better: {rates} at equal share"
    if overall.lower_bound > 0 and candidate_share >= incumbent_share - config.margin:
        return True, f"better: {rates}, {shares}"
    return False, f"neither better nor cheaper: {shares}, {rates}"


def _compare(name: str, rows: Sequence[Outcome], config: GateConfig, *, widen: bool) -> SliceVerdict:
    n = len(rows)
    won = sum(o.candidate and not o.incumbent for o in rows)
    lost = sum(bool(o.incumbent) and not o.candidate for o in rows)
    bound = paired_lower_bound(won, lost, n, config.confidence)
    margin = max(config.margin, resolvable_margin(won + lost, n, config)) if widen else config.margin
    return SliceVerdict(
        name=name,
        n=n,
        candidate=sum(o.candidate for o in rows) / n,
        incumbent=sum(bool(o.incumbent) for o in rows) / n,
        lower_bound=bound,
        margin=margin,
        passed=bound >= -margin,
    )


def resolvable_margin(discordant: int, n: int, config: GateConfig) -> float:
    """The smallest margin at which an equal student would pass with ``config.power``.

    ``discordant`` rows of ``n`` differ between the two, so the difference of two equal students has
    the standard error sqrt(discordant) / n.
    """
    tied = -paired_lower_bound(discordant / 2, discordant / 2, n, config.confidence)
    return tied + NormalDist().inv_cdf(config.power) * sqrt(discordant) / n


def paired_lower_bound(won: float, lost: float, n: int, confidence: float) -> float:
    """One-sided lower bound of P(candidate acceptable) - P(incumbent acceptable), paired, after Tango (1998).

    Args:
        won: rows where only the candidate's answer is acceptable.
        lost: rows where only the incumbent's is.
        n: all rows compared.

    Returns:
        A difference in [-1, 1]; -1 without rows.
    """
    if n == 0:
        return -1.0
    z = NormalDist().inv_cdf(confidence)
    return _root(lambda delta: _tango(won, lost, n, delta) - z, -1.0, (won - lost) / n)


def _tango(won: float, lost: float, n: int, delta: float) -> float:
    """Tango's score statistic for the hypothesis that the difference is ``delta``, in which it falls."""
    a = 2.0 * n
    b = -won - lost + (2 * n - won + lost) * delta
    c = -lost * delta * (1 - delta)
    q = (sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + delta * (1 - delta))
    distance = won - lost - n * delta
    if variance <= 0:
        return 0.0 if distance == 0 else float("inf")
    return distance / sqrt(variance)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Bisects a falling function that is >= 0 at ``low`` and <= 0 at ``high``, to 1e-9."""
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return low
