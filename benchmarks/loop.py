"""The true loop on Banking77: an empty student learns, round by round, from the requests it could not take.

Customer messages go one by one, in a fixed shuffled order, through a running `locum up`, as "name the
intent" requests from the `openai` client. A replay server plays the teacher with the recorded label;
SmolLM2-135M-Instruct (or, with `--engine head`, label heads without a language model) is the student and is truly
distilled on this machine whenever the policy's own trigger (`locum distill watch --once`) says that a round is due.
The stream waits while a round runs.

    python benchmarks/loop.py --data ../shared/data --out benchmarks/results/loop.json

It prints, per 500 requests: share to the student, parity (agreement of what the client got with the
teacher), teacher calls so far (audits included), net spend against all-teacher, and what random routing
at the same share would have given; and per bundle, the share that was promised and the share that clients
got, who say nothing of a temperature.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

from harness import ReplayServer, Row, Running, conditions, last_user_text, read_jsonl, running, write_result
from openai import AsyncOpenAI
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from shares import KeptShare, kept_share

from router.contracts.bundles import MANIFEST, Manifest
from router.contracts.decision import Tier
from router.contracts.records import Record
from router.contracts.rounds import history
from router.settings import Settings
from router.store.access import open_readonly

SYSTEM = "Name the intent of the customer's message."
WINDOW = 500
STUDENTS: dict[str, Row] = {
    "embedded": {
        "model": "smollm2-135m-instruct",
        "engine": "embedded",
        "usd_per_million": {"input": 0.02, "output": 0.06},
    },
    "head": {"engine": "head"},
}
ROUND_SIZES = {"head": 200}
"""New trainable records that start a round, where not the usual 800: a head is fitted in seconds."""
LAST = 2000
"""Requests at the end of the stream over which the floor is promised, and counted."""


@dataclass(frozen=True)
class Served:
    """What the client saw of one request."""

    request_id: str
    tier: str
    reason: str
    bundle: str
    agrees: bool


def policy(teacher_url: str, args: argparse.Namespace) -> Row:
    """The loop's policy: a parity floor, nothing hand-set but the audit rate and the size of a round."""
    return {
        "name": "intents",
        "student": STUDENTS.get(args.engine) or STUDENTS["embedded"] | {"engine": args.engine},
        "scorer": {"encoder": args.encoder},
        "teacher": {
            "model": "recorded-labels",
            "url": teacher_url,
            "usd_per_million": {"input": 1.25, "output": 10.0},
            "training_rights": "allowed",
        },
        "objective": {"parity": {"at_least": args.parity, "confidence": 0.95, "over_requests": LAST}},
        "audit": {
            "rate": args.audit_rate,
            "warmup_rate": args.warmup_rate,
            "usd_per_day": 100,
            "concurrency": 8,
        },
        "judge": "normalised",
        "distil": {"min_new_records": args.round_size, "epochs": args.epochs, "usd_per_hour": 0.1, "canary": None},
    }


async def send(client: AsyncOpenAI, row: Row) -> Served:
    """One customer message, as the official client sends it."""
    raw = await client.chat.completions.with_raw_response.create(
        model="intents",
        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["text"]}],
        max_tokens=24,
    )
    text = raw.parse().choices[0].message.content or ""
    head = raw.headers
    return Served(
        request_id=head["x-locum-request-id"],
        tier=head["x-locum-tier"],
        reason=head["x-locum-reason"],
        bundle=head.get("x-locum-bundle", ""),
        agrees=text.strip() == row["gold"],
    )


async def stream(locum: Running, rows: Sequence[Row], args: argparse.Namespace, console: Console) -> list[Served]:
    """Sends every row, ``args.concurrency`` at a time, and lets the trigger look every ``args.watch_every``."""
    client = AsyncOpenAI(base_url=locum.url, api_key="unused", max_retries=0, timeout=120)
    seen: list[Served] = []
    with Progress(
        TextColumn("requests"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        task = progress.add_task("", total=len(rows))
        for start in range(0, len(rows), args.watch_every):
            block = iter(rows[start : start + args.watch_every])
            answered: dict[int, Served] = {}

            async def worker(source: Iterable[tuple[int, Row]], into: dict[int, Served]) -> None:
                for position, row in source:
                    into[position] = await send(client, row)
                    progress.advance(task)

            source = enumerate(block)
            await asyncio.gather(*(worker(source, answered) for _ in range(args.concurrency)))
            seen += [answered[i] for i in sorted(answered)]
            if len(seen) % WINDOW == 0:
                last = seen[-WINDOW:]
                console.print(f"{len(seen):>6} share {share(last):.3f}  parity {parity(last):.3f}")
            if len(seen) < len(rows):
                progress.stop()
                await asyncio.to_thread(locum.locum, "distill", "watch", "--once", "--policy", str(locum.policy_file))
                progress.start()
    await client.close()
    return seen


def share(served: Sequence[Served]) -> float:
    return sum(s.tier == "student" for s in served) / len(served)


def parity(served: Sequence[Served]) -> float:
    return sum(s.agrees for s in served) / len(served)


def student_alone(records: Iterable[Record]) -> dict[str, float]:
    """Per bundle, how often the student is right on all traffic: over the audited, a uniform sample of it."""
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        if record.audit and record.audit.acceptable is not None:
            verdicts[record.bundle or ""].append(record.audit.acceptable)
    return {bundle: sum(v) / len(v) for bundle, v in verdicts.items()}


def window_row(
    name: str, part: Sequence[Served], sofar: Sequence[Record], alone: dict[str, float], rounds: Sequence[Row]
) -> Row:
    """One line of the table. Random routing at this share would serve that share of an unchosen student.

    The spend is net of nothing left out: served, audited and discarded answers, and every round so far.
    """
    at = share(part)
    training = (Decimal(r["cost_usd"]) for r in rounds if r["at"] <= sofar[-1].created_at)
    spent = sum((r.cost_usd for r in sofar), sum(training, Decimal(0)))
    always_student = sum(alone.get(s.bundle, 0.0) for s in part) / len(part)
    return {
        "name": name,
        "requests": len(part),
        "share": round(at, 4),
        "parity": round(parity(part), 4),
        "teacher_calls_so_far": sum(r.answer_of(Tier.TEACHER) is not None for r in sofar),
        "spend_usd_so_far": float(round(spent, 6)),
        "all_teacher_usd_so_far": float(round(sum((r.counterfactual_usd for r in sofar), Decimal(0)), 6)),
        "random_parity_at_this_share": round(1 - at * (1 - always_student), 4),
        "always_student_parity": round(always_student, 4),
        "always_teacher_parity": 1.0,
        "oracle_share_at_parity_1": round(always_student, 4),
    }


def recorded(settings: Settings, labels: dict[str, str]) -> list[Served]:
    """What the clients of an earlier, perhaps interrupted, run saw, read back from its records."""
    found = sorted((r for _, r in open_readonly(settings).records(policy="intents")), key=lambda r: r.created_at)
    return [
        Served(
            request_id=r.request_id,
            tier=str(r.tier),
            reason=str(r.reason),
            bundle=r.bundle or "",
            agrees=r.answers[0].message["content"].strip() == labels[last_user_text(r.request)],
        )
        for r in found
        if r.request and r.answers and r.answers[0].message
    ]


def table(settings: Settings, seen: Sequence[Served]) -> list[Row]:
    """The windows, the last 2,000 and the whole stream, then one row a bundle."""
    store = open_readonly(settings)
    by_id = {r.request_id: r for _, r in store.records(policy="intents")}
    records = [by_id[s.request_id] for s in seen]
    alone = student_alone(records)
    ends = range(WINDOW, len(seen) + 1, WINDOW)
    rounds = history(settings.work("intents"))
    rows = [window_row(f"{end - WINDOW}-{end}", seen[end - WINDOW : end], records[:end], alone, rounds) for end in ends]
    rows.append(window_row(f"last {LAST}", seen[-LAST:], records, alone, rounds))
    rows.append(window_row("locum", seen, records, alone, rounds))
    folder = settings.bundles("intents")
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        made = Manifest.model_validate_json(path.read_bytes())
        evidence = made.thresholds.evidence
        kept = kept_share(made, [s.tier for s in seen if s.bundle == made.bundle_id])
        rows.append(
            {
                "name": f"bundle {made.bundle_id}",
                "train_rows": made.dataset.train,
                "holdout_rows": made.dataset.holdout,
                "train_seconds": round(made.train_seconds),
                "training_usd": float(made.cost_usd),
                "accept_threshold": made.thresholds.accept,
                "certified": evidence.model_dump() if evidence else None,
                "share_of_clients": asdict(kept) if kept else None,
                "first_request": next((i for i, s in enumerate(seen) if s.bundle == made.bundle_id), None),
            }
        )
    rows.append({"name": "wall clock", "seconds": round(records[-1].created_at - records[0].created_at)})
    return rows


def show(rows: Sequence[Row], console: Console) -> None:
    view = Table(title="Banking77: the loop", header_style="bold")
    for column in (
        "requests",
        "share",
        "parity",
        "teacher calls",
        "spend $",
        "all-teacher $",
        "random's parity",
    ):
        view.add_column(column, justify="right")
    for row in rows:
        if "share" in row:
            view.add_row(
                row["name"],
                f"{row['share']:.3f}",
                f"{row['parity']:.3f}",
                str(row["teacher_calls_so_far"]),
                f"{row['spend_usd_so_far']:.4f}",
                f"{row['all_teacher_usd_so_far']:.4f}",
                f"{row['random_parity_at_this_share']:.3f}",
            )
    console.print(view)
    for row in rows:
        if told := row.get("share_of_clients"):
            console.print(f"{row['name']}: share to the student {KeptShare(**told)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with banking77.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="where the table goes (JSON)")
    parser.add_argument("--requests", type=int, help="send only the first N of the shuffled stream")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=8, help="requests in flight")
    parser.add_argument("--engine", choices=["embedded", "llama-server", "head"], default="embedded")
    parser.add_argument("--encoder", choices=["static", "transformer"], default="static", help="of scorer and heads")
    parser.add_argument("--parity", type=float, default=0.95, help="the floor")
    parser.add_argument("--audit-rate", type=float, default=0.08)
    parser.add_argument("--warmup-rate", type=float, default=0.3, help="share held out before the student serves")
    parser.add_argument("--round-size", type=int, help="new trainable records that start a round (800; heads: 200)")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--watch-every", type=int, default=250, help="requests between looks at the trigger")
    parser.add_argument("--home", type=Path, help="keep the installation here instead of in a temporary folder")
    parser.add_argument("--report", action="store_true", help="send nothing: the table of what --home has recorded")
    args = parser.parse_args()
    args.round_size = args.round_size or ROUND_SIZES.get(args.engine, 800)
    return args


def main() -> None:
    args, console = arguments(), Console()
    rows = [r for r in read_jsonl(args.data / "banking77.jsonl.gz") if r["gold"]]
    random.Random(args.seed).shuffle(rows)
    rows = rows[: args.requests]
    answers = {r["text"]: r["gold"] for r in rows}
    home = args.home or Path(tempfile.mkdtemp(prefix="locum-loop-"))
    console.print(f"{len(rows)} requests, teacher replayed from recorded labels; everything is kept in {home}")
    settings = Settings(home=home)
    if args.report:
        seen = recorded(settings, answers)
    else:
        with (
            ReplayServer("recorded-labels", lambda body: answers[last_user_text(body)]) as teacher,
            running(home, policy(teacher.url, args)) as locum,
        ):
            seen = asyncio.run(stream(locum, rows, args, console))
    made = table(settings, seen)
    show(made, console)
    about = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k not in ("out", "home", "data")}
    where = conditions(
        **about,
        stream=f"Banking77, fixed shuffle: {len(seen)} of {len(rows)} requests",
        teacher="simulated: the recorded gold label, replayed; prices of 1.25 and 10 USD per million tokens assumed",
        student=(
            f"label heads, {args.encoder} encoder, no price; the round's machine at 0.10 USD an hour"
            if args.engine == "head"
            else "SmolLM2-135M-Instruct; 0.02 and 0.06 USD per million tokens assumed, training at 0.10 USD an hour"
        ),
        note="the stream waits while a round runs; teacher tokens are words times 1.3",
    )
    write_result(args.out, "loop", where, made)


if __name__ == "__main__":
    main()
