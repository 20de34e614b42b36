"""Promote only what is proven no worse: a paired test on the frozen holdout, in every form that will serve.

Pure: values in, a verdict with its reasons out. A row is one audited request that both students
answered. The bound is Tango's score interval for the difference of two paired proportions (T. Tango,
"Equivalence test and confidence interval for the difference in proportions for the paired-sample
design", Statistics in Medicine 17, 1998), which stays honest where few rows, or none, differ.

Many tests, and what holds over all of them. A candidate must pass overall and on each slice, in each form:
an intersection-union test (Berger, "Multiparameter hypothesis testing and acceptance sampling",
Technometrics 24, 1982), so that no correction is needed against promoting harm. One whose true loss is the margin
or more, overall or on any one slice (the margin stated with that slice), in any form, is promoted with probability
1 - ``confidence`` at most, however many slices there are: testing more can only reject more. Errors of the other
kind add up instead, so the slices share theirs: by Bonferroni, a candidate that is as good as the incumbent everywhere
is vetoed by any slice at all with probability 1 - ``power`` at most; more slices widen each one's margin a little.
Overall the margin is fixed, whatever the holdout can resolve: an equal candidate is often rejected by a small one,
and the reason then says how many rows would tell. Not so for label heads under a quality floor (``GateConfig.fixed``).
Both rates are checked by simulation: ``benchmarks/gate.py``. Each is for one round: the same loss, allowed again in
every round, would add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, sqrt
from statistics import NormalDist
from typing import Any

from distiller.config import GateConfig

_USUAL = GateConfig()
OVERALL = "overall"
LEAST_ROWS = 50
"""Audited rows below which nothing is judged at all."""


@dataclass(frozen=True, slots=True)
class PairedOutcome:
    """One holdout row: was each student's answer acceptable? ``slices`` names the groups it is in.

    ``incumbent`` is None where there is no incumbent's answer; such rows are not compared. ``form``: in which form
    the candidate answered; empty is the engine's own.
    """

    request_id: str
    candidate: bool
    incumbent: bool | None = None
    slices: tuple[str, ...] = ()
    form: str = ""


@dataclass(frozen=True, slots=True)
class SliceResult:
    """One paired comparison. Rates are acceptable answers over ``n`` rows; ``lower_bound`` and ``margin``
    are differences of rates, candidate less incumbent and incumbent less candidate. ``needed``: rows by which an
    equal student would pass four times out of five, where these are too few to tell."""

    name: str
    n: int
    candidate: float
    incumbent: float
    lower_bound: float
    margin: float
    passed: bool
    form: str = ""
    needed: int | None = None

    def __str__(self) -> str:
        relation = ">=" if self.passed else "<"
        name = self.name if self.name == OVERALL else f"slice {self.name}"
        return (
            f"{f'form {self.form}, ' if self.form else ''}{name}: {self.incumbent:.2f} -> {self.candidate:.2f}, "
            f"n={self.n}, lower bound {self.lower_bound:+.3f} {relation} {-self.margin:+.3f}{self._why}"
        )

    @property
    def _why(self) -> str:
        if self.passed:
            return ""
        loss = self.incumbent - self.candidate
        found = f"; {100 * abs(loss):.1f} points {'worse' if loss > 0 else 'better'} on these rows"
        return found + (f", too few to tell: about {self.needed} would" if self.needed else "")


@dataclass(frozen=True, slots=True)
class GateResult:
    """``reasons`` are the sentences a user reads: what failed, or why it passed."""

    promoted: bool
    reasons: tuple[str, ...]
    slices: tuple[SliceResult, ...]
    candidate_share: float
    incumbent_share: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)


def judge(
    outcomes: Sequence[PairedOutcome],
    candidate_share: float,
    incumbent_share: float,
    config: GateConfig = _USUAL,
) -> GateResult:
    """Promotes a candidate that is non-inferior overall and on every large slice, in every form, and better or cheaper.

    Args:
        outcomes: the holdout's rows, each judged for both students; once for every form that will serve, the one
            first that the shares belong to, against the incumbent as it serves now.
        candidate_share, incumbent_share: expected student share, each at its own thresholds for the
            same target on the same rows; the larger one is the cheaper.
    """
    forms = _by_form(outcomes)
    shares = candidate_share, incumbent_share
    if all(o.incumbent is None for o in outcomes):
        return _without_incumbent(forms, shares, config)
    pairs = {form: [o for o in rows if o.incumbent is not None] for form, rows in forms.items()}
    found, failed = _tests(pairs, config)
    overall = next(v for v in found if v.name == OVERALL)
    gain, why = _gain(overall, *shares, config)
    reasons = failed + ([] if gain else [why])
    return GateResult(not reasons, tuple(reasons or [str(overall), why]), tuple(found), *shares)


def no_worse(outcomes: Sequence[PairedOutcome], config: GateConfig = _USUAL) -> GateResult:
    """Whether live traffic shows a canary worse than the incumbent, overall or on a slice; a gain was shown before.

    The same tests on fewer rows, so each at the margin that these rows resolve, the overall one too: an equal
    candidate fails any of them with probability 1 - ``power`` at most. Without rows nothing speaks against it.
    """
    pairs = [o for o in outcomes if o.incumbent is not None]
    if not pairs:
        return GateResult(True, ("no audit compares the two: the gate's word holds",), (), 0.0, 0.0)
    groups = _slices(pairs, config)
    found = tuple(_compare("", name, rows, config, len(groups)) for name, rows in groups)
    failed = tuple(str(v) for v in found if not v.passed)
    return GateResult(not failed, failed or (str(found[0]),), found, 0.0, 0.0)


def _by_form(outcomes: Iterable[PairedOutcome]) -> dict[str, list[PairedOutcome]]:
    forms: dict[str, list[PairedOutcome]] = {}
    for outcome in outcomes:
        forms.setdefault(outcome.form, []).append(outcome)
    return forms


def _tests(forms: dict[str, list[PairedOutcome]], config: GateConfig) -> tuple[list[SliceResult], list[str]]:
    """Every comparison, each form's overall first, and the sentences of those that failed."""
    groups = [(form, name, rows) for form, all_ in forms.items() for name, rows in _slices(all_, config)]
    count = max(1, sum(name != OVERALL for _, name, _ in groups))
    fixed = {OVERALL} if config.fixed else set()
    found = [_compare(form, name, rows, config, None if name in fixed else count) for form, name, rows in groups]
    missing = [f"form {form}: it has no row to compare" for form, rows in forms.items() if not rows]
    return found, [str(v) for v in found if not v.passed] + missing


def _slices(rows: Sequence[PairedOutcome], config: GateConfig) -> list[tuple[str, list[PairedOutcome]]]:
    """All rows, then each slice that may veto; one that all rows are in says nothing more."""
    names = sorted({s for o in rows for s in o.slices})
    groups = [(name, [o for o in rows if name in o.slices]) for name in names]
    large = [(name, part) for name, part in groups if config.min_slice <= len(part) < len(rows)]
    return [(OVERALL, list(rows)), *large] if rows else []


def _without_incumbent(
    forms: dict[str, list[PairedOutcome]], shares: tuple[float, float], config: GateConfig
) -> GateResult:
    """Nothing to be inferior to: enough rows must still exist, some answers must be acceptable, and what a form
    beside the first loses is lost against the first."""
    first = next(iter(forms.values()), [])
    good, enough = sum(o.candidate for o in first), len(first) >= LEAST_ROWS
    if not enough or not good:
        few = f"only {len(first)} audited holdout rows; at least {LEAST_ROWS} are needed to judge"
        none = f"no incumbent to compare with, and none of {len(first)} holdout answers is acceptable"
        return GateResult(False, (none if enough else few,), (), *shares)
    own = {o.request_id: o.candidate for o in first}
    others = {
        form: [replace(o, incumbent=own[o.request_id]) for o in rows if o.request_id in own]
        for form, rows in forms.items()
        if rows is not first
    }
    found, failed = _tests(others, config)
    reason = f"no incumbent to compare with: {good} of {len(first)} holdout answers acceptable"
    return GateResult(not failed, tuple(failed or [reason]), tuple(found), *shares)


def _gain(overall: SliceResult, candidate_share: float, incumbent_share: float, config: GateConfig) -> tuple[bool, str]:
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


def _compare(
    form: str, name: str, rows: Sequence[PairedOutcome], config: GateConfig, slices: int | None
) -> SliceResult:
    """``slices``: of how many it is one, whose margins may be widened; None: the fixed margin."""
    n = len(rows)
    won = sum(o.candidate and not o.incumbent for o in rows)
    lost = sum(bool(o.incumbent) and not o.candidate for o in rows)
    bound = paired_lower_bound(won, lost, n, config.confidence)
    margin = config.margin if slices is None else max(config.margin, resolvable_margin(won + lost, n, config, slices))
    untold = bound < -margin <= (won - lost) / n
    return SliceResult(
        name=name,
        n=n,
        candidate=sum(o.candidate for o in rows) / n,
        incumbent=sum(bool(o.incumbent) for o in rows) / n,
        lower_bound=bound,
        margin=margin,
        passed=bound >= -margin,
        form=form,
        needed=rows_needed((won + lost) / n, config) if untold else None,
    )


def resolvable_margin(discordant: int, n: int, config: GateConfig, slices: int = 1) -> float:
    """The smallest margin at which an equal student would pass all of so many slices with ``config.power``.

    ``discordant`` rows of ``n`` differ between the two, so the difference of two equal students has
    the standard error sqrt(discordant) / n.
    """
    tied = -paired_lower_bound(discordant / 2, discordant / 2, n, config.confidence)
    return tied + NormalDist().inv_cdf(1 - (1 - config.power) / slices) * sqrt(discordant) / n


def rows_needed(discordant: float, config: GateConfig, power: float = 0.8) -> int:
    """Rows by which an equal student passes the fixed margin with probability ``power``, where the share
    ``discordant`` of them differs (Connor, "Sample size for testing differences in proportions for the
    paired-sample design", Biometrics 43, 1987, with no true difference); at least those by which two that never
    differ pass."""
    z = NormalDist().inv_cdf(config.confidence)
    undiffering = z * z * (1 - config.margin) / config.margin
    return ceil(max(undiffering, discordant * ((z + NormalDist().inv_cdf(power)) / config.margin) ** 2))


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
