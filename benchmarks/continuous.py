"""Does the floor hold at every audit, while each audit may move the threshold and the traffic changes in between?

What `promise.py --continuous` runs. Simulated: each stream draws requests, with replacement, from the recorded rows of
one set, with the scores that the product's scorer gives them; in its middle the student changes, or does not:

- "none": all stays as it is.
- "worse": what the student did well fails with probability 0.3.
- "blind": the score says nothing any more; 45% of all answers fail.

A threshold is certified on a sample of the same rows before the stream begins. From then on 2% of the requests are
audited, 20% while a rule asks for more; a rule sees the audits alone, one after another, and may move the threshold at
each. At every audit from the first ``OVER`` requests on it is counted what part of all requests since the beginning
was served by the student unacceptably. A stream is broken where that was more than 1 - target at any audit.

The rules:

- "locum": the product's own certificate (for_parity, over ``OVER`` requests) and monitor.
- "locum, proof alone": the same without what suspicion withdraws before there is proof.
- "one shot": the certificate, never looked at again.
- "exact, taken again": Clopper and Pearson's on all audits up to now, taken anew at every audit.
- "latched": e-processes (the product's Certificates); what once passed stays certified.
- "e-process, not latched": one capped e-process for each of 101 thresholds, Bonferroni among them, looked at anew at
  every audit, as firstpass does (its ADR 0011, after Khosravi and Huo 2026, arXiv 2605.20270), written anew here; its
  risk is taken over all requests, as the floor's is.
- "oracle" knows the rows: the loosest threshold that keeps the floor, before and after the change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from harness import Row
from pools import Pool
from rich.console import Console
from rich.progress import track
from rich.table import Table

from router.contracts.bundles import NEVER
from router.scoring.statistics.monitor import AuditedRequest, Certificates, Monitor
from router.scoring.statistics.thresholds import fixed_grid, for_parity

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BEFORE = AFTER = 20_000
CERTIFY = 2000
OVER = 1000
RATE, WARY_RATE = 0.02, 0.2
CHANGES = ("none", "worse", "blind")
LOCUM, PROOF, FIRSTPASS = "locum", "locum, proof alone", "e-process, not latched"


@dataclass(frozen=True)
class Promise:
    target: float
    confidence: float


class Certified(NamedTuple):
    """Scores and verdicts, (n,) each, in the order in which they came."""

    scores: Floats
    good: Bools


class Rule(Protocol):
    """What holds the thresholds: one for each name. ``wary``: it asks for more audits."""

    wary: bool
    thresholds: Sequence[float]

    def observe(self, score: float, good: bool) -> None: ...


class OneShot:
    wary = False

    def __init__(self, sample: Certified, promise: Promise) -> None:
        found = for_parity(sample.scores, None, sample.good, promise.target, promise.confidence, over=OVER)
        self.thresholds = [found.route]

    def observe(self, score: float, good: bool) -> None:
        pass


class Locum:
    """The threshold that serves, and the one that would if a suspicion withdrew nothing."""

    def __init__(self, sample: Certified, promise: Promise) -> None:
        (start,) = OneShot(sample, promise).thresholds
        self._monitor = Monitor(promise.target, promise.confidence, start=start, spare=0.0)
        self.wary, self.thresholds = self._monitor.wary, [start, start]

    def observe(self, score: float, good: bool) -> None:
        self._monitor.observe(AuditedRequest(score, good))
        self.wary, self.thresholds = self._monitor.wary, [self._monitor.threshold, self._monitor.certified]


class TakenAgain:
    wary = False

    def __init__(self, sample: Certified, promise: Promise) -> None:
        from scipy.stats import binom

        doubt, n = 1 - promise.confidence, len(sample.scores)
        counts = np.arange(n, n + BEFORE + AFTER)
        most = binom.ppf(doubt, counts, 1 - promise.target)  # the first count with at least that chance
        self._most = most - (binom.cdf(most, counts, 1 - promise.target) > doubt)
        self._wrong, self._seen = -np.sort(-sample.scores[~sample.good]), 0
        self.thresholds = [self._found()]

    def observe(self, score: float, good: bool) -> None:
        self._seen += 1
        if not good:
            self._wrong = np.insert(self._wrong, np.searchsorted(-self._wrong, -score), score)
        self.thresholds = [self._found()]

    def _found(self) -> float:
        most = int(self._most[self._seen])
        if most < 0:
            return NEVER
        return float(np.nextafter(self._wrong[most], np.inf)) if most < len(self._wrong) else 0.0


class Latched:
    wary = False

    def __init__(self, sample: Certified, promise: Promise) -> None:
        self._certificates = Certificates(promise.target, 1 - promise.confidence, fixed_grid())
        for score, good in zip(*sample, strict=True):
            self.observe(float(score), bool(good))

    def observe(self, score: float, good: bool) -> None:
        self._certificates.update(AuditedRequest(score, good))
        self.thresholds = [self._certificates.loosest]


class NotLatched:
    """Bet 0.5, cap ten times the level that certifies: firstpass's defaults."""

    wary = False
    BET, CAP = 0.5, 10.0

    def __init__(self, sample: Certified, promise: Promise) -> None:
        self._grid = np.linspace(0, 1, 101)
        self._limit, self._bar = 1 - promise.target, len(self._grid) / (1 - promise.confidence)
        self._wealth = np.ones(len(self._grid))
        for score, good in zip(*sample, strict=True):
            self.observe(float(score), bool(good))

    def observe(self, score: float, good: bool) -> None:
        lost = (score >= self._grid) & (not good)
        self._wealth *= 1 + self.BET * (self._limit - lost)
        np.minimum(self._wealth, self.CAP * self._bar, out=self._wealth)
        passed = self._grid[self._wealth >= self._bar]
        self.thresholds = [float(passed[0]) if len(passed) else NEVER]


RULES: dict[tuple[str, ...], Callable[[Certified, Promise], Rule]] = {
    (LOCUM, PROOF): Locum,
    ("one shot",): OneShot,
    ("exact, taken again",): TakenAgain,
    ("latched",): Latched,
    (FIRSTPASS,): NotLatched,
}
"""By the names of their thresholds."""
NAMES = [name for names in RULES for name in names]


class Stream(NamedTuple):
    """What one rule made of one stream. ``worst``: the largest part lost, of all requests up to an audit."""

    worst: float
    share: tuple[float, float]
    lost_after: float
    audits: int


def changed(pool: Pool, change: str) -> Pool:
    failing = {
        "none": pool.failing,
        "worse": 1 - (1 - pool.failing) * 0.7,
        "blind": np.full(len(pool.failing), 0.45),
    }[change]
    return Pool(pool.scores, failing)


def run(rule: Rule, before: Pool, after: Pool, rng: np.random.Generator) -> list[Stream]:
    """One stream under each of a rule's thresholds; its draws are the same for every rule of the same ``rng``."""
    parts = []
    for pool, requests in ((before, BEFORE), (after, AFTER)):
        rows = rng.integers(0, len(pool.scores), requests)
        parts.append((pool.scores[rows], rng.random(requests) < pool.failing[rows]))
    scores, failed = (np.concatenate(both) for both in zip(*parts, strict=True))
    draws = rng.random(len(scores))
    served, lost = np.zeros((2, 2, len(rule.thresholds)))  # each by half and threshold
    worst, at, audits = np.zeros(len(rule.thresholds)), 0, 0
    for request in np.flatnonzero(draws < WARY_RATE):
        if draws[request] >= (WARY_RATE if rule.wary else RATE):
            continue
        end = int(request) + 1
        for half, (first, last) in enumerate(((at, min(end, BEFORE)), (max(at, BEFORE), end))):
            let_in = scores[first:last, None] >= np.asarray(rule.thresholds)
            served[half] += let_in.sum(axis=0)
            lost[half] += (let_in & failed[first:last, None]).sum(axis=0)
        at, audits = end, audits + 1
        if at >= OVER:
            worst = np.maximum(worst, lost.sum(axis=0) / at)
        rule.observe(float(scores[request]), not failed[request])
    shares = zip(served[0] / BEFORE, served[1] / AFTER, strict=True)
    columns = zip(worst, shares, lost[1] / AFTER, strict=True)
    return [Stream(float(most), (float(a), float(b)), float(after), audits) for most, (a, b), after in columns]


def cell_rows(set_name: str, parts: Sequence[Certified], promise: Promise, change: str, streams: int) -> list[Row]:
    """Every rule on the same ``streams`` streams of one set, one promise and one change."""
    limit, found = 1 - promise.target, {name: list[Stream]() for name in NAMES}
    oracle = np.zeros(2)
    for seed in range(streams):
        scores, good = parts[seed % len(parts)]
        before = Pool(scores, (~good).astype(np.float64))
        after = changed(before, change)
        oracle += [before.served(before.loosest(limit)), after.served(after.loosest(limit))]
        rows = np.random.default_rng([seed, 1]).integers(0, len(scores), CERTIFY)
        sample = Certified(scores[rows], good[rows])
        for names, make in RULES.items():
            streams_of = run(make(sample, promise), before, after, np.random.default_rng([seed, 2]))
            for name, stream in zip(names, streams_of, strict=True):
                found[name].append(stream)
    about = {"set": set_name, "target": promise.target, "confidence": promise.confidence, "change": change}
    said = [_row(rule, about, runs, limit) for rule, runs in found.items()]
    best = {
        "name": "oracle",
        **about,
        "share_before": float(oracle[0]) / streams,
        "share_after": float(oracle[1]) / streams,
    }
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in [*said, best]]


def _row(rule: str, about: Row, runs: Sequence[Stream], limit: float) -> Row:
    return {
        "name": rule,
        **about,
        "broke": float(np.mean([r.worst > limit + 1e-12 for r in runs])),
        "allowed": 1 - about["confidence"],
        "worst": max(r.worst for r in runs),
        "worst_median": float(np.median([r.worst for r in runs])),
        "share_before": float(np.mean([r.share[0] for r in runs])),
        "share_after": float(np.mean([r.share[1] for r in runs])),
        "lost_after": float(np.mean([r.lost_after for r in runs])),
        "audits": float(np.mean([r.audits for r in runs])),
        "streams": len(runs),
    }


def _cell(given: tuple[str, Sequence[Certified], Promise, str, int]) -> list[Row]:
    return cell_rows(*given)


def measured(
    parts: dict[str, list[tuple[Floats, Bools]]], promises: Sequence[Promise], streams: int, console: Console
) -> list[Row]:
    """All cells, a process for each core."""
    cells = [
        (name, [Certified(*part) for part in found], promise, change, streams)
        for name, found in parts.items()
        for promise in promises
        for change in CHANGES
    ]
    with ProcessPoolExecutor() as pool:
        found_rows = track(pool.map(_cell, cells), "streams", total=len(cells), console=console)
        return [row for rows in found_rows for row in rows]


def kept(row: Row) -> bool:
    """Whether so many streams broke as chance explains where each may with probability ``allowed``, 99 times of 100."""
    from scipy.stats import binom

    return bool(row["broke"] * row["streams"] <= binom.ppf(0.99, row["streams"], row["allowed"]) + 1e-9)


def show(rows: Sequence[Row], console: Console) -> None:
    """By change and rule: in how many cells the floor was kept, the worst of all, and what went to the student."""
    view = Table(title="the floor at every audit", header_style="bold")
    for column in ("change", "rule", "kept in", "streams broken", "worst / allowed", "share before", "after"):
        view.add_column(column, justify="left" if column in ("change", "rule") else "right")
    for change in CHANGES:
        for rule in (*NAMES, "oracle"):
            found = [r for r in rows if (r["change"], r["name"]) == (change, rule)]
            shares = [f"{np.mean([r[k] for r in found]):.3f}" for k in ("share_before", "share_after")]
            if rule == "oracle":
                view.add_row(change, rule, "", "", "", *shares, end_section=True)
                continue
            worst = max(r["worst"] / (1 - r["target"]) for r in found)
            broke = np.mean([r["broke"] for r in found])
            keeps = f"{sum(map(kept, found))} of {len(found)}"
            view.add_row(change, rule, keeps, f"{broke:.1%}", f"{worst:.2f}", *shares)
    console.print(view)
