"""The traffic changes under a certified threshold: how soon is it noticed, what is lost meanwhile, and is it regained?

Simulated from recordings: requests are drawn, with replacement, from recorded prompts with the recorded
correctness of two models, and a change happens at a known request. Nothing goes over HTTP, verdicts come at once,
and money for audits has no cap; what decides is the product's own code: the scorer, the certification of its
threshold, the guard's watch over audited records, and the audit rate that follows from it. A request is lost where
the student serves it and is wrong while the teacher is right; parity and what is lost are counted over the whole
recorded pool, so no chance of the stream is in them.

Scenarios: new categories appear (a quarter of the names, by a hash; and, as the worst case, those where the student
is weakest); the student gets worse (what it did well fails with probability 0.3); it breaks and is repaired; the
teacher is replaced by a better one; and nothing changes, at parity just at the floor and at the certified threshold.
Beside the guard stand the fixed threshold, an oracle that knows the change and the best threshold after it at once,
the guard without its closer look on suspicion, and the teacher alone.

    python benchmarks/drift.py --data ../shared/data --out benchmarks/results/drift.json
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import Row, conditions, write_result
from pools import SETS, Item, Pool, new_names
from rich.console import Console
from rich.table import Table

from router.bundles.watcher import LiveBundle
from router.contracts.bundles import NEVER, Thresholds
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Audit, Record
from router.policy.policy import Policy
from router.routing.decision import audit_rate
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.statistics.thresholds import for_parity
from router.scoring.text.encoder import load_encoder
from router.scoring.text.features import FEATURES_VERSION
from router.served.guard import BundleWatch
from router.settings import Settings

FIT, CERTIFY = 2500, 2000
"""Requests that fit the scorer, and audited ones that certify its threshold."""
BEFORE, AFTER, STATIONARY = 20_000, 60_000, 100_000
"""Requests of a stream until its change, after it, and of one without any."""
WORSE = 0.3
TARGET, CONFIDENCE = 0.95, 0.95


@dataclass(frozen=True)
class Stretch:
    pool: Pool
    requests: int


@dataclass
class Run:
    """What one stream went through. ``alarms`` and ``recoveries`` are request numbers."""

    lost: float
    share_before: float
    share_after: float
    parity_after: float
    audits: int
    wary: int
    alarms: list[int]
    recoveries: list[int]
    regained: int | None


class World:
    """One set with a scorer fitted on the categories that are not new; streams by seed."""

    def __init__(self, items: Sequence[Item], teacher: str, other: str | None, new: set[str], seed: int) -> None:
        rng = np.random.default_rng(seed)
        known = [i for i in items if i.category not in new]
        order = rng.permutation(len(known))
        fit = [known[i] for i in order[:FIT]]
        encoder = load_encoder(Settings.from_env().cache)
        self.scorer = Scorer.fit([Example(i.features, None, i.acceptable[teacher]) for i in fit], encoder, seed)
        self._known, self._new = [known[i] for i in order[FIT:]], [i for i in items if i.category in new]
        self._teacher, self._other = teacher, other
        self._scores = {id(i): self.scorer.score(i.features) for i in (*self._known, *self._new)}

    def certified(self, seed: int) -> tuple[Thresholds, dict[str, Pool]]:
        """The bundle's thresholds by ``CERTIFY`` audited requests, and pools of what was not among them."""
        order = np.random.default_rng(seed).permutation(len(self._known))
        certify, rest = ([self._known[i] for i in part] for part in np.split(order, [CERTIFY]))
        scores = [self._scores[id(i)] for i in certify]
        good = [i.acceptable[self._teacher] for i in certify]
        thresholds = for_parity(scores, None, good, TARGET, CONFIDENCE)
        pools = {"known": self._pool(rest, self._teacher)}
        pools["worse"] = replace(pools["known"], failing=1 - (1 - pools["known"].failing) * (1 - WORSE))
        if self._new:
            half = [self._new[i] for i in np.random.default_rng(seed).integers(0, len(self._new), len(rest))]
            pools["new"] = self._pool([*rest, *half], self._teacher)
        if self._other:
            pools["other"] = self._pool(rest, self._other)
        return thresholds, pools

    def _pool(self, items: Sequence[Item], teacher: str) -> Pool:
        scores = np.array([self._scores[id(i)] for i in items])
        return Pool(scores, np.array([not i.acceptable[teacher] for i in items], np.float64))


def policy() -> Policy:
    return Policy.model_validate(
        {
            "name": "drift",
            "student": {"model": "s", "url": "http://s", "usd_per_million": {"input": 0, "output": 0}},
            "teacher": {"model": "t"},
            "objective": {"parity": {"at_least": TARGET, "confidence": CONFIDENCE}},
            "audit": {"explore": 0},
            "accept": {"cascade": False},
        }
    )


class Guarded:
    """The threshold as the guard holds it, over one stream. ``calm``: without the closer look on suspicion."""

    def __init__(self, scorer: Scorer, thresholds: Thresholds, *, calm: bool = False) -> None:
        self._policy, self._own, self._calm = policy(), thresholds, calm
        self.watch = BundleWatch(self._policy, LiveBundle("b", scorer, thresholds), since=0.0)

    @property
    def monitor(self) -> Any:
        return self.watch.monitor

    @property
    def wary(self) -> bool:
        return self.monitor.alarm or (self.monitor.wary and not self._calm)

    @property
    def threshold(self) -> float:
        return (self.watch.thresholds or self._own).route

    @property
    def rate(self) -> float:
        return audit_rate(self._policy, self.watch.thresholds or self._own, self.wary)

    def audit(self, n: int, score: float, acceptable: bool) -> None:
        tier = Tier.STUDENT if score >= self.threshold else Tier.TEACHER
        decision = Decision(tier=tier, reason=Reason.SCORE, score=score, threshold=self.threshold)
        self.watch.observe(
            Record(
                request_id=str(n),
                conversation_id=str(n),
                created_at=float(n),
                policy="drift",
                policy_version="0",
                bundle="b",
                features_version=FEATURES_VERSION,
                decision=decision,
                tier=tier,
                reason=Reason.SCORE,
                audit=Audit(acceptable=acceptable),
            )
        )


def stretches(stream: Sequence[Stretch]) -> Iterator[tuple[int, int, Pool]]:
    start = 0
    for part in stream:
        yield start, start + part.requests, part.pool
        start += part.requests


def guarded(holder: Guarded, stream: Sequence[Stretch], seed: int) -> Run:
    """Plays one stream from audit to audit: between two of them nothing can change."""
    rng, limit = np.random.default_rng(seed), 1 - TARGET
    run = Run(0.0, 0.0, 0.0, 1.0, 0, 0, [], [], None)
    changed = stream[0].requests
    for start, end, pool in stretches(stream):
        at = start
        while at < end:
            gap = int(rng.geometric(holder.rate))
            threshold, alarm = holder.threshold, holder.monitor.alarm
            step = min(gap, end - at)
            if start >= changed:
                run.lost += step * max(0.0, pool.risk(threshold) - limit)
            run.wary += step * holder.wary
            at += step
            if gap > step or at >= end:
                continue
            one = int(rng.integers(len(pool.scores)))
            before = holder.monitor.alarms
            holder.audit(at, float(pool.scores[one]), bool(rng.random() >= pool.failing[one]))
            run.audits += at >= changed
            if holder.monitor.alarms > before:
                run.alarms.append(at)
            elif alarm and not holder.monitor.alarm:
                run.recoveries.append(at)
            if run.alarms and run.regained is None and holder.threshold <= 1:
                run.regained = at
        if start == 0:
            run.share_before = pool.served(holder.threshold)
    run.share_after, run.parity_after = pool.served(holder.threshold), 1 - pool.risk(holder.threshold)
    return run


def fixed(threshold: Callable[[Pool], float], stream: Sequence[Stretch]) -> Run:
    """The same figures for a threshold that each stretch has from its first request on."""
    lost = sum(p.requests * max(0.0, p.pool.risk(threshold(p.pool)) - (1 - TARGET)) for p in stream[1:])
    first, last = stream[0].pool, stream[-1].pool
    parity = 1 - last.risk(threshold(last))
    return Run(lost, first.served(threshold(first)), last.served(threshold(last)), parity, 0, 0, [], [], None)


def scenarios(pools: Mapping[str, Pool]) -> dict[str, list[Stretch]]:
    known = Stretch(pools["known"], BEFORE)
    found = {"student gets worse": [known, Stretch(pools["worse"], AFTER)]}
    broken = Pool(pools["known"].scores, 1 - (1 - pools["known"].failing) * 0.2)
    repaired = [known, Stretch(broken, BEFORE // 2), Stretch(pools["known"], AFTER - BEFORE // 2)]
    found["student breaks, is repaired"] = repaired
    if "new" in pools:
        found["new categories"] = [known, Stretch(pools["new"], AFTER)]
    if "other" in pools:
        found["teacher replaced"] = [known, Stretch(pools["other"], AFTER)]
    return found


def described(runs: Sequence[Run], at: int) -> Row:
    """Medians over the streams, with their 5th and 95th percentiles; requests, and parts of one."""

    def spread(values: Sequence[float]) -> list[float] | None:
        return [round(float(v), 4) for v in np.quantile(values, (0.5, 0.05, 0.95))] if len(values) else None

    detected = [next((a - at for a in r.alarms if a > at), None) for r in runs]
    recovered = [r.recoveries[-1] - next(a for a in r.alarms if a > at) for r, d in zip(runs, detected, strict=True)
                 if d is not None and r.recoveries and r.recoveries[-1] > at]  # fmt: skip
    regained = [r.regained - r.alarms[0] for r in runs if r.regained is not None]
    seen = [d for d in detected if d is not None]
    return {
        "streams": len(runs),
        "alarms before the change": sum(any(a <= at for a in r.alarms) for r in runs),
        "detected": len(seen),
        "requests until detection": spread(seen),
        "requests lost below the floor": spread([r.lost for r in runs]),
        "requests from alarm to first served": spread(regained),
        "requests from alarm to recovered": spread(recovered),
        "recovered": len(recovered),
        "parity at the end": spread([r.parity_after for r in runs]),
        "floor kept at the end": sum(r.parity_after >= TARGET for r in runs),
        "student share before": spread([r.share_before for r in runs]),
        "student share at the end": spread([r.share_after for r in runs]),
        "audits after the change": spread([r.audits for r in runs]),
        "share of requests under a closer look": spread([r.wary / (BEFORE + AFTER) for r in runs]),
    }


def changes(name: str, kind: str, world: World, seeds: int) -> Iterator[Row]:
    runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for seed in range(seeds):
        thresholds, pools = world.certified(seed)
        for scenario, stream in scenarios(pools).items():
            if (scenario == "new categories") != (kind != ""):
                continue
            label = f"{scenario}{kind}"
            runs["locum", label].append(guarded(Guarded(world.scorer, thresholds), stream, seed))
            calm = Guarded(world.scorer, thresholds, calm=True)
            runs["locum, audits no closer on suspicion", label].append(guarded(calm, stream, seed))
            runs["fixed threshold", label].append(fixed(lambda _, t=thresholds: t.route, stream))
            runs["oracle restart", label].append(fixed(lambda pool: pool.loosest(1 - TARGET), stream))
            runs["always-teacher", label].append(fixed(lambda _: NEVER, stream))
    for (method, label), found in runs.items():
        yield {"name": method, "set": name, "scenario": label, **described(found, BEFORE)}


def stationary(name: str, world: World, streams: int) -> Iterator[Row]:
    """False alarms where nothing changes: at the certified threshold, and at the floor itself (the worst case)."""
    found: dict[str, list[Run]] = defaultdict(list)
    for seed in range(streams):
        thresholds, pools = world.certified(seed)
        pool = pools["known"]
        edge = Thresholds(route=pool.loosest(1 - TARGET), accept=0.0)
        for label, own in (("nothing changes", thresholds), ("nothing changes, parity at the floor", edge)):
            if pool.risk(own.route) > 1 - TARGET + 1e-9:
                continue  # certified though it breaks the floor, as some may: an alarm would not be false
            found[label].append(guarded(Guarded(world.scorer, own), [Stretch(pool, STATIONARY)], seed))
    for label, runs in found.items():
        false = sum(bool(r.alarms) for r in runs)
        yield {
            "name": "locum",
            "set": name,
            "scenario": label,
            "streams": len(runs),
            "requests a stream": STATIONARY,
            "streams with a false alarm": false,
            "false alarm rate": round(false / len(runs), 4),
            "promised at most": round(1 - CONFIDENCE, 4),
            "share of requests under a closer look": round(float(np.mean([r.wary for r in runs])) / STATIONARY, 4),
        }


def show(rows: Sequence[Row]) -> None:
    table = Table("set", "scenario", "name", "detected", "until", "lost", "recovered after", "share", "to", "parity")
    for r in rows:
        if "detected" in r:
            cells = [
                f"{r['detected']}/{r['streams']}",
                *(str(r[k][0]) if r[k] else "" for k in ("requests until detection", "requests lost below the floor",
                  "requests from alarm to recovered", "student share before", "student share at the end",
                  "parity at the end")),
            ]  # fmt: skip
            table.add_row(r["set"], r["scenario"], r["name"], *cells)
        else:
            table.add_row(r["set"], r["scenario"], r["name"], f"{r['streams with a false alarm']}/{r['streams']} false")
    Console(width=180).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mmlu.jsonl.gz and mmlu_pro.jsonl.gz")
    parser.add_argument("--set", choices=sorted(SETS), action="append", help="by default all")
    parser.add_argument("--seeds", type=int, default=20, help="streams of each scenario")
    parser.add_argument("--stationary", type=int, default=100, help="streams without a change")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows: list[Row] = []
    for name in args.set or sorted(SETS):
        read, teacher, other = SETS[name]
        items = read(args.data)
        everything = World(items, teacher, other, set(), 0)
        rows += changes(name, "", everything, args.seeds)
        rows += stationary(name, everything, args.stationary)
        for kind, hardest in ((" (a quarter, by hash)", False), (" (a quarter, the hardest)", True)):
            new = World(items, teacher, None, new_names(items, teacher, hardest=hardest), 0)
            rows += changes(name, kind, new, args.seeds)
    where = conditions(
        stream="simulated from recordings, drawn with replacement; verdicts at once; no cap on audits",
        target=TARGET,
        confidence=CONFIDENCE,
        audit_rate=policy().audit.rate,
        warmup_rate=policy().audit.warmup_rate,
        requests_before=BEFORE,
        requests_after=AFTER,
        fitted_on=FIT,
        certified_on=CERTIFY,
        spread="median, 5th and 95th percentile over streams",
    )
    write_result(args.out, "drift", where, rows)
    show(rows)


if __name__ == "__main__":
    main()
