"""Does `locum replay` know what a policy will give? A hundred streams, each replayed and then really run.

A trial shuffles recorded outcomes of real models, lets the first part be served by policy A (a threshold,
with the product's own decision and audit draw at 2 to 20%), asks the replay what policy B (another
threshold) would give over the next N requests, and then serves the next N requests by B. Counted is how
often what B gave lies inside the interval that the replay had told, for each figure.

    python benchmarks/offpolicy.py --data ../shared/data --out benchmarks/results/offpolicy.json

Beside it: the same by the audits alone (inverse propensity), the long run's interval without the next
stretch's own chance, and the scorer's probabilities taken at their word, as a router without audits must.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
from harness import Row, conditions, count_tokens, multiple_choice, read_jsonl, write_result
from rich.console import Console
from rich.progress import track
from rich.table import Table

from distiller.replay.log import read_log
from distiller.replay.plans import sample_of
from distiller.replay.report import plan_of
from distiller.replay.traffic import traffic_of
from router.contracts.bundles import Thresholds
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record, Usage
from router.policy.policy import Policy
from router.pricing import Prices, cost_usd
from router.routing.decision import Facts, RequestView, decide, drawn
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.statistics.estimates import Interval, figures
from router.scoring.text.encoder import load_encoder
from router.scoring.text.features import FEATURES_VERSION, Features, extract
from router.settings import Settings

TOLD = ("share", "parity", "risk", "cost", "saving", "saved_share")
RATES = (0.02, 0.05, 0.1, 0.2)
BUNDLE = "b-1"
ANY = Thresholds(route=0.0, accept=0.0)
ANSWER_TOKENS = 120
"""Where no text was recorded, what an answer is taken to have, give or take a third."""


@dataclass(frozen=True)
class Item:
    """One recorded request: what it asked, whether the student's answer is as good, what both used."""

    features: Features
    acceptable: bool
    student: Usage
    teacher: Usage
    score: float = 0.0


def usage(prompt: str, answer: str | None, rng: np.random.Generator) -> Usage:
    output = count_tokens(answer) if answer else int(ANSWER_TOKENS * rng.uniform(2 / 3, 4 / 3))
    return Usage(input_tokens=count_tokens(prompt), output_tokens=max(1, output))


def read_items(path: Path, rng: np.random.Generator) -> list[Item]:
    """The set's rows; acceptable means no worse than the teacher on that row."""
    items = []
    for row in read_jsonl(path):
        if "outputs" in row:
            prompt, one, other = multiple_choice(row), *(row["outputs"][m] for m in PAIR)
            right, wanted, said, told = one["correct"], other["correct"], one["text"], other["text"]
        else:
            prompt, right, wanted = row["prompt"], row["student_correct"], row["teacher_correct"]
            said, told = row.get("student_text"), row.get("teacher_text")
        features = extract({"messages": [{"role": "user", "content": prompt}]})
        items.append(Item(features, right >= wanted, usage(prompt, said, rng), usage(prompt, told, rng)))
    return items


PAIR = ("llama-3.1-8b", "gemini-1.5-pro")


def policy(threshold: float, rate: float) -> Policy:
    return Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "s", "url": "http://s", "usd_per_million": {"input": 0.1, "output": 0.1}},
            "teacher": {"model": "t", "url": "http://t", "usd_per_million": {"input": 1.25, "output": 5.0}},
            "objective": {"threshold": threshold},
            "accept": {"cascade": False},
            "audit": {"rate": rate, "usd_per_day": 10_000},
            "log": {"text": False},
        }
    )


def decided(item: Item, name: str, by: Policy) -> Decision:
    """As the proxy decides, draws of audit and exploration included."""
    state = Facts(
        score=item.score,
        thresholds=ANY,
        propensity=by.audit.rate,
        audited=drawn(name, by.audit.rate),
        explore=drawn(f"c-{name}", by.audit.explore, "explore"),
    )
    return decide(by, RequestView(item.features, {}), state)


def record(item: Item, name: str, at: float, by: Policy, prices: Prices) -> Record:
    decision = decided(item, name, by)

    def answer(tier: Tier, kind: AnswerKind) -> Answer:
        used, price = (item.student, prices.student) if tier is Tier.STUDENT else (item.teacher, prices.teacher())
        return Answer(tier=tier, kind=kind, model="m", usage=used, cost_usd=cost_usd(used, price), finish_reason="stop")

    audit = Audit(answer=answer(decision.tier.other, AnswerKind.AUDITED), acceptable=item.acceptable)
    return Record(
        request_id=name,
        conversation_id=f"c-{name}",
        created_at=at,
        policy=by.name,
        policy_version=by.version,
        bundle=BUNDLE,
        features_version=FEATURES_VERSION,
        decision=decision,
        tier=decision.tier,
        reason=Reason.SCORE,
        answers=[answer(decision.tier, AnswerKind.SERVED)],
        audit=audit if decision.audited else None,
    )


def gave(items: Sequence[Item], names: Sequence[str], by: Policy, prices: Prices) -> dict[str, float]:
    """What the policy really gave: every outcome of both tiers is recorded, so nothing is estimated."""
    student = bad = 0
    cost = alone = Decimal(0)
    for item, name in zip(items, names, strict=True):
        own, dear = cost_usd(item.student, prices.student), cost_usd(item.teacher, prices.teacher())
        decision = decided(item, name, by)
        served = decision.tier is Tier.STUDENT
        student, bad = student + served, bad + (served and not item.acceptable)
        cost += own + dear if decision.audited else (own if served else dear)
        alone += dear
    n = len(items)
    return {
        "share": student / n,
        "parity": 1 - bad / n,
        "risk": bad / max(1, student),
        "cost": float(cost) / n,
        "saving": float(alone - cost) / n,
        "saved_share": float(1 - cost / alone),
    }


def told(log: Sequence[Record], by: Policy, ahead: int) -> dict[str, Mapping[str, Interval]]:
    """What each method says that the policy will give over the next ``ahead`` requests."""
    rows, _ = read_log(log, [by])
    traffic = traffic_of(rows, 0, by, None, BUNDLE)
    sample = sample_of(traffic, plan_of(by, None, traffic), by.audit)
    blind = replace(sample, audited=np.zeros_like(sample.audited))
    guessed = float(sample.guess_served @ sample.guess_bad)
    wrong, n = guessed / max(1e-9, float(sample.guess_served.sum())), len(traffic)
    model = dict(figures(blind, ahead=ahead))
    for name, rate, of in (("parity", 1 - guessed / n, 1.0), ("risk", wrong, float(sample.guess_served.mean()))):
        half = 1.96 * (rate * (1 - rate) / max(1.0, ahead * of)) ** 0.5
        model[name] = Interval(rate, rate - half, rate + half)
    return {
        "locum": figures(sample, ahead=ahead),
        "audits alone": figures(sample, robust=False, ahead=ahead),
        "long run only": figures(sample),
        "scorer's word": model,
    }


def trials(
    name: str, items: Sequence[Item], args: argparse.Namespace, count: int, rng: np.random.Generator
) -> list[Row]:
    """``count`` trials on one set, a fresh scorer every ``args.refit`` of them."""
    encoder, made = load_encoder(Settings.from_env().cache), []
    scorer, rest = None, list(items)
    for trial in track(range(count), name):
        if scorer is None or trial % args.refit == 0:
            order = rng.permutation(len(items))
            cut = min(args.learn, len(items) // 3)
            learn = [Example(items[i].features, None, items[i].acceptable) for i in order[:cut]]
            scorer = Scorer.fit(learn, encoder, seed=trial)
            rest = [replace(items[i], score=scorer.score(items[i].features)) for i in order[cut:]]
        stream = [rest[i] for i in rng.permutation(len(rest))]
        half = len(stream) * 2 // 3
        rate = float(rng.choice(RATES))
        scores = [i.score for i in stream]
        a, b = (policy(float(np.quantile(scores, 1 - rng.uniform(0.2, 0.9))), rate) for _ in range(2))
        prices = Prices.of(a)
        names = [f"{name}-{trial}-{n}" for n in range(len(stream))]
        log = [record(item, names[n], 60.0 * n, a, prices) for n, item in enumerate(stream[:half])]
        truth = gave(stream[half:], names[half:], b, prices)
        audits = sum(r.audit is not None for r in log)
        made.append({"set": name, "rate": rate, "audits": audits, "log": half, "ahead": len(stream) - half})
        made[-1] |= {"truth": truth, "told": told(log, b, len(stream) - half)}
    return made


def rows_of(made: Sequence[Row]) -> list[Row]:
    """For each method: of how many trials each figure lay inside, the intervals' mean width, mean error."""
    rows = []
    for method in made[0]["told"]:
        row: Row = {"name": method, "trials": len(made)}
        inside: dict[str, int] = defaultdict(int)
        for figure in TOLD:
            pairs = [(t["told"][method][figure], t["truth"][figure]) for t in made]
            inside[figure] = int(sum(i.holds(v) for i, v in pairs))
            scale = 1000 if figure in ("cost", "saving") else 1
            row[f"{figure}_inside"] = inside[figure]
            row[f"{figure}_width"] = round(scale * float(np.mean([i.high - i.low for i, _ in pairs])), 4)
            missed = [abs(i.estimate - v) for i, v in pairs if i.estimate is not None]
            row[f"{figure}_error"] = round(scale * float(np.mean(missed)), 4)
        row["least_inside"] = min(inside.values())
        rows.append(row)
    for name in dict.fromkeys(t["set"] for t in made):
        part = [t for t in made if t["set"] == name]
        row = {"name": f"locum on {name}", "trials": len(part)}
        row |= {f"{f}_inside": int(sum(t["told"]["locum"][f].holds(t["truth"][f]) for t in part)) for f in TOLD}
        row |= {k: round(float(np.mean([t[k] for t in part])), 1) for k in ("log", "ahead", "audits")}
        rows.append(row)
    for rate in RATES:
        part = [t for t in made if t["rate"] == rate]
        row = {"name": f"locum at an audit rate of {rate:g}", "trials": len(part)}
        row |= {f"{f}_inside": int(sum(t["told"]["locum"][f].holds(t["truth"][f]) for t in part)) for f in TOLD}
        rows.append(row)
    return rows


def show(rows: Sequence[Row], console: Console) -> None:
    view = Table(title="What the policy then gave lay inside the interval", header_style="bold")
    for column in ("", "trials", *TOLD):
        view.add_column(column, justify="right")
    for row in rows:
        view.add_row(row["name"], str(row["trials"]), *(str(row[f"{f}_inside"]) for f in TOLD))
    console.print(view)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the recorded sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--learn", type=int, default=1500, help="rows that the scorer is fitted on, at most")
    parser.add_argument("--refit", type=int, default=10, help="trials that share a scorer")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args, console, start = arguments(), Console(), time.monotonic()
    rng = np.random.default_rng(args.seed)
    few = args.trials // 5
    counts = {"mmlu_pro": args.trials - 3 * few, "mmlu": 2 * few, "gsm8k": few}
    made: list[Row] = []
    for name, count in counts.items():
        made += trials(name, read_items(args.data / f"{name}.jsonl.gz", rng), args, count, rng)
    rows = rows_of(made)
    show(rows, console)
    about = {k: v for k, v in vars(args).items() if k not in ("out", "data")}
    note = (
        "intervals at 95%, of the next `ahead` requests; cost and saving in USD per 1,000 requests; prices of 0.1/0.1 "
        f"and 1.25/5 USD per million assumed; MMLU has no text: {ANSWER_TOKENS} tokens an answer, "
        "give or take a third, assumed; the recorded models date from 2023-24"
    )
    write_result(args.out, "offpolicy", conditions(**about, note=note, seconds=round(time.monotonic() - start)), rows)


if __name__ == "__main__":
    main()
