"""Both tiers replay recorded answers of real models behind the real proxy: the cost-quality frontier.

The first part of the rows is traffic to learn from: the teacher serves, the student is asked in the
background, and the recorded correctness is the verdict (acceptable: the student is no worse than the
teacher on that row). `locum distill run --no-train` then fits the scorer and certifies a threshold. The
rest is unseen traffic: served by that policy, and ranked by the score the proxy reports.

    python benchmarks/replay.py --data ../shared/data --set mmlu_pro --student llama-3.1-8b \\
        --teacher gemini-1.5-pro --out benchmarks/results/replay-mmlu_pro.json
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import (
    ReplayServer,
    Row,
    Running,
    conditions,
    count_tokens,
    last_user_text,
    multiple_choice,
    read_jsonl,
    running,
    write_result,
)
from measures import Outcomes, apgr, at_share
from openai import AsyncOpenAI
from rich.console import Console
from rich.table import Table

from router.contracts.records import Audit
from router.policy.policy import load_policy
from router.store.access import open_readonly, open_store

POLICY = "replay"


@dataclass(frozen=True)
class Item:
    """One recorded prompt with both tiers' recorded answers and whether each was correct."""

    prompt: str
    student_text: str
    teacher_text: str
    student_right: bool
    teacher_right: bool


@dataclass(frozen=True)
class Served:
    item: Item
    request_id: str
    tier: str
    score: float | None

    @property
    def right(self) -> bool:
        return self.item.student_right if self.tier == "student" else self.item.teacher_right


def mmlu_pro(row: Row, student: str, teacher: str) -> Item:
    one, other = row["outputs"][student], row["outputs"][teacher]
    return Item(multiple_choice(row), one["text"], other["text"], one["correct"], other["correct"])


def gsm8k(row: Row, student: str, teacher: str) -> Item:
    return Item(row["prompt"], row["student_text"], row["teacher_text"], row["student_correct"], row["teacher_correct"])


SETS: dict[str, Callable[[Row, str, str], Item]] = {"mmlu_pro": mmlu_pro, "gsm8k": gsm8k}


def read_items(args: argparse.Namespace) -> list[Item]:
    """The set's rows, one a prompt, in a fixed shuffled order."""
    rows = read_jsonl(args.data / f"{args.set}.jsonl.gz")
    items = {item.prompt: item for item in (SETS[args.set](r, args.student, args.teacher) for r in rows)}
    shuffled = list(items.values())
    random.Random(args.seed).shuffle(shuffled)
    return shuffled[: args.requests]


def policy(student_url: str, teacher_url: str, args: argparse.Namespace) -> Row:
    return {
        "name": POLICY,
        "student": {
            "model": args.student,
            "url": student_url,
            "usd_per_million": {"input": args.student_usd, "output": args.student_usd},
            "unfit_for": {"context_tokens_over": 100_000},
        },
        "teacher": {
            "model": args.teacher,
            "url": teacher_url,
            "usd_per_million": {"input": args.teacher_usd, "output": 4 * args.teacher_usd},
            "training_rights": "unknown",
        },
        "objective": {"parity": {"at_least": args.parity, "confidence": 0.95}},
        "audit": {"rate": 0.0, "warmup_rate": 1.0, "usd_per_day": 1000, "concurrency": 8},
    }


async def send_all(url: str, items: Sequence[Item], label: str, console: Console) -> list[Served]:
    client = AsyncOpenAI(base_url=url, api_key="unused", max_retries=0, timeout=60)
    served: list[Served] = []
    source = iter(items)

    async def worker() -> None:
        for item in source:
            raw = await client.chat.completions.with_raw_response.create(
                model=POLICY, messages=[{"role": "user", "content": item.prompt}]
            )
            head = raw.headers
            score = float(head["x-locum-score"]) if "x-locum-score" in head else None
            served.append(Served(item, head["x-locum-request-id"], head["x-locum-tier"], score))

    with console.status(f"{label}: {len(items)} requests"):
        await asyncio.gather(*(worker() for _ in range(8)))
    await client.close()
    return served


def write_verdicts(locum: Running, served: Sequence[Served]) -> int:
    """Puts the recorded correctness in place of the proxy's own verdict on every audited pair."""
    verdict = {s.request_id: s.item.student_right >= s.item.teacher_right for s in served}
    pairs = [r for _, r in open_readonly(locum.settings).records(policy=POLICY) if r.audit and r.audit.answer]
    store = open_store(locum.settings, [load_policy(locum.policy_file)])
    for record in pairs:
        assert record.audit
        audit = Audit(answer=record.audit.answer, acceptable=verdict[record.request_id], judge="recorded correctness")
        store.amend(record.request_id, audit=audit)
    asyncio.run(store.flush())
    store.close()
    return len(pairs)


def usd(item: Item, by_student: bool, args: argparse.Namespace) -> float:
    """What the row costs at one tier, by the replay servers' token rule."""
    if by_student:
        return args.student_usd * (count_tokens(item.prompt) + count_tokens(item.student_text)) / 1e6
    return args.teacher_usd * (count_tokens(item.prompt) + 4 * count_tokens(item.teacher_text)) / 1e6


def outcomes(items: Sequence[Item], args: argparse.Namespace) -> Outcomes:
    return Outcomes(
        np.array([i.student_right for i in items]),
        np.array([i.teacher_right for i in items]),
        np.array([usd(i, True, args) for i in items]),
        np.array([usd(i, False, args) for i in items]),
    )


def frontier(rank: np.ndarray, known: Outcomes) -> list[Row]:
    """Quality and cost at every twentieth escalated. ``rank``: float[n], high goes to the teacher first."""
    points = []
    for escalated in np.linspace(0, 1, 21).tolist():
        _, accuracy, usd_per_1000 = at_share(rank, known, escalated)
        figures = {"accuracy": round(accuracy, 4), "usd_per_1000": round(usd_per_1000, 5)}
        points.append({"escalated": round(escalated, 2), **figures})
    return points


def rows_of(test: Sequence[Served], args: argparse.Namespace) -> list[Row]:
    """Our policy as it was served, then each ranking's frontier."""
    items = [s.item for s in test]
    rng = np.random.default_rng(args.seed)
    known = outcomes(items, args)
    ranks = {
        "locum frontier": np.array([-s.score if s.score is not None else 0.0 for s in test]),
        "random": rng.random(len(test)),
        "oracle": known.teacher.astype(float) - known.student,
    }
    lines = {name: frontier(rank, known) for name, rank in ranks.items()}
    made: list[Row] = [
        {
            "name": "locum",
            "escalated": round(sum(s.tier == "teacher" for s in test) / len(test), 4),
            "accuracy": round(sum(s.right for s in test) / len(test), 4),
            "parity": round(sum(s.tier == "teacher" or s.right >= s.item.teacher_right for s in test) / len(test), 4),
            "usd_per_1000": round(1000 * sum(usd(s.item, s.tier == "student", args) for s in test) / len(test), 5),
        },
        {"name": "always-student", **lines["random"][0]},
        {"name": "always-teacher", **lines["random"][-1]},
    ]
    made += [
        {"name": name, "apgr": round(apgr(ranks[name], known), 4), "frontier": line} for name, line in lines.items()
    ]
    return made


def show(rows: Sequence[Row], console: Console) -> None:
    view = Table(title="Cost and quality on unseen traffic", header_style="bold")
    for column in ("", "escalated", "accuracy", "USD / 1,000", "APGR"):
        view.add_column(column, justify="right")
    for row in rows:
        points = row.get("frontier", [row])
        for point in points[:: 4 if len(points) > 1 else 1]:
            name = row["name"] if point is points[0] else ""
            gap = f"{row['apgr']:.3f}" if "apgr" in row and name else ""
            view.add_row(
                name, f"{point['escalated']:.2f}", f"{point['accuracy']:.3f}", f"{point['usd_per_1000']:.4f}", gap
            )
    console.print(view)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with SET.jsonl.gz")
    parser.add_argument("--set", choices=sorted(SETS), required=True)
    parser.add_argument("--student", default="student", help="recorded model that plays the student")
    parser.add_argument("--teacher", default="teacher", help="recorded model that plays the teacher")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--requests", type=int, help="use only the first N rows of the fixed shuffle")
    parser.add_argument("--learn", type=float, default=0.6, help="share of the rows to learn from")
    parser.add_argument("--parity", type=float, default=0.95)
    parser.add_argument("--student-usd", type=float, default=0.1, help="per million tokens")
    parser.add_argument("--teacher-usd", type=float, default=1.25, help="per million input tokens; output is 4 times")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args, console = arguments(), Console()
    items = read_items(args)
    cut = int(args.learn * len(items))
    home = Path(tempfile.mkdtemp(prefix="locum-replay-"))
    by_prompt = {i.prompt: i for i in items}
    with (
        ReplayServer(args.student, lambda body: by_prompt[last_user_text(body)].student_text) as student,
        ReplayServer(args.teacher, lambda body: by_prompt[last_user_text(body)].teacher_text) as teacher,
        running(home, policy(student.url, teacher.url, args), command="serve") as locum,
    ):
        learned = asyncio.run(send_all(locum.url, items[:cut], "learning", console))
        console.print(f"{write_verdicts(locum, learned)} pairs judged by recorded correctness")
        locum.locum("distill", "run", "--no-train", "--policy", str(locum.policy_file))
        made = rows_of(asyncio.run(send_all(locum.url, items[cut:], "unseen", console)), args)
    show(made, console)
    about = {k: v for k, v in vars(args).items() if k not in ("out", "data")}
    note = "both tiers are replayed from recordings of 2023-24; no figure says what a present model would give"
    write_result(args.out, "replay", conditions(**about, learn_rows=cut, test_rows=len(items) - cut, note=note), made)


if __name__ == "__main__":
    main()
