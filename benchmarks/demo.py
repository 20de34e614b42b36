"""`make demo`: the whole loop in under ten minutes, with no key, no GPU and no Docker.

A real small student (SmolLM2-135M-Instruct) runs on this machine behind a real proxy. The teacher is
SIMULATED: a local server that knows the right answers of a written workload and waits a typical time.
Traffic goes through the official `openai` client; one real distillation round runs on this CPU; fresh
traffic shows what it changed.

    python benchmarks/demo.py [--keep]
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from harness import ReplayServer, Row, Running, last_user_text, running
from openai import AsyncOpenAI
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from shares import kept_share
from workload import Task, tasks

from router.contracts.bundles import read_active, read_manifest
from router.contracts.rounds import history
from router.store.access import open_readonly

BEFORE, AFTER = 560, 240
IN_FLIGHT = 8
TEACHER_SECONDS = 0.4


@dataclass(frozen=True)
class Seen:
    """What the client saw of one request."""

    task: Task
    request_id: str
    tier: str
    bundle: str
    right: bool
    seconds: float


def policy(teacher_url: str) -> Row:
    return {
        "name": "demo",
        "aliases": ["gpt-4o"],
        "student": {
            "model": "smollm2-135m-instruct",
            "engine": "embedded",
            "usd_per_million": {"input": 0.02, "output": 0.06},
        },
        "teacher": {
            "model": "simulated-teacher",
            "url": teacher_url,
            "usd_per_million": {"input": 1.25, "output": 10.0},
            "training_rights": "allowed",
        },
        "objective": {"parity": {"at_least": 0.95, "confidence": 0.9}},
        "audit": {"rate": 0.05, "warmup_rate": 0.3, "usd_per_day": 5, "concurrency": 8},
        "judge": "json",
        "distil": {"min_new_records": 200, "epochs": 3, "usd_per_hour": 0.1, "canary": None},
    }


async def send(client: AsyncOpenAI, task: Task) -> Seen:
    began = time.perf_counter()
    raw = await client.chat.completions.with_raw_response.create(
        model="gpt-4o",
        messages=[{"role": "system", "content": task.system}, {"role": "user", "content": task.prompt}],
        metadata={"task": task.kind},
        max_tokens=48,
    )
    text = raw.parse().choices[0].message.content or ""
    return Seen(
        task=task,
        request_id=raw.headers["x-locum-request-id"],
        tier=raw.headers["x-locum-tier"],
        bundle=raw.headers["x-locum-bundle"],
        right=text.strip() == task.answer,
        seconds=time.perf_counter() - began,
    )


async def traffic(url: str, work: Sequence[Task], label: str, console: Console) -> list[Seen]:
    """Sends all of ``work``, ``IN_FLIGHT`` at a time, with the official client."""
    client = AsyncOpenAI(base_url=url, api_key="none-needed", max_retries=0, timeout=120)
    seen: list[Seen] = []
    source = iter(work)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(work))

        async def worker() -> None:
            for task in source:
                seen.append(await send(client, task))
                progress.advance(bar)

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    await client.close()
    return seen


def figures(locum: Running, seen: Sequence[Seen], training_usd: Decimal = Decimal(0)) -> dict[str, str]:
    """The column of the before-and-after table; money from the records, audits and the round included."""
    ids = {s.request_id for s in seen}
    records = [r for _, r in open_readonly(locum.settings).records(policy="demo") if r.request_id in ids]
    spent = sum((r.cost_usd for r in records), training_usd)
    alone = sum((r.counterfactual_usd for r in records), Decimal(0))
    at = sorted(s.seconds for s in seen)
    made = {
        "requests": str(len(seen)),
        "share to the student": f"{sum(s.tier == 'student' for s in seen) / len(seen):.0%}",
        "right answers": f"{sum(s.right for s in seen) / len(seen):.1%}",
    }
    for kind in ("triage", "extract", "reason"):
        of = [s for s in seen if s.task.kind == kind]
        by_student = sum(s.tier == "student" for s in of) / len(of)
        made[f"  {kind}"] = f"{sum(s.right for s in of) / len(of):.0%} right, {by_student:.0%} by the student"
    return made | {
        "spend, audits and the round included": f"${spent:.4f}",
        "all-teacher would cost": f"${alone:.4f}",
        "net saving": f"{(alone - spent) / alone:+.0%}" if alone else "n/a",
        "latency p50": f"{statistics.median(at) * 1000:.0f} ms",
        "latency p95": f"{at[int(0.95 * len(at))] * 1000:.0f} ms",
    }


def share_told(locum: Running, seen: Sequence[Seen]) -> str:
    """What the live bundle promised of the share, and what its clients got, who say nothing of a temperature."""
    folder = locum.settings.bundles("demo")
    live = read_active(folder).bundle
    if live is None:
        return "nothing was promised, since the round's student was not taken"
    kept = kept_share(read_manifest(folder, live), [s.tier for s in seen if s.bundle == live])
    return "nothing was promised" if kept is None else str(kept)


def before_and_after(before: dict[str, str], after: dict[str, str], console: Console) -> None:
    view = Table(title="What one round of distillation changed (teacher simulated)", header_style="bold")
    view.add_column("")
    view.add_column("before", justify="right")
    view.add_column("after", justify="right", style="green")
    for name, value in before.items():
        view.add_row(name, value, after[name])
    console.print(view)


def demo(home: Path, keep: bool, console: Console) -> None:
    work = tasks(BEFORE + AFTER, seed=7)
    answers = {t.prompt: t.answer for t in work}
    console.print("[bold]1/4[/] Starting the student, the proxy and a simulated teacher")
    with (
        ReplayServer("simulated-teacher", lambda body: answers[last_user_text(body)], TEACHER_SECONDS) as teacher,
        ExitStack() as stack,
    ):
        with console.status("      on a first start the student's weights are unpacked: up to a minute"):
            locum = stack.enter_context(running(home, policy(teacher.url), patience_seconds=300))
        console.print(f"      ready at {locum.url}")
        console.print("[bold]2/4[/] A day's traffic: nothing is known yet, so the teacher answers")
        before = figures(locum, asyncio.run(traffic(locum.url, work[:BEFORE], "     ", console)))
        console.print("[bold]3/4[/] One round: dataset, training, evaluation, scorer, gate, bundle, swap")
        locum.locum("distill", "run", "--policy", str(locum.policy_file))
        console.print("[bold]4/4[/] Fresh traffic, never seen before")
        round_usd = sum((Decimal(r["cost_usd"]) for r in history(locum.settings.work("demo"))), Decimal(0))
        fresh = asyncio.run(traffic(locum.url, work[BEFORE:], "     ", console))
        before_and_after(before, figures(locum, fresh, round_usd), console)
        console.print(f"Share to the student: {share_told(locum, fresh)}")
        console.print(pointer(locum))
        if keep:
            wait(console)


def pointer(locum: Running) -> Panel:
    return Panel(
        f"Point your own client at it:\n\n"
        f"  from openai import OpenAI\n"
        f'  client = OpenAI(base_url="{locum.url}", api_key="none-needed")\n\n'
        f"and look at  LOCUM_HOME={locum.home} locum status --policy {locum.policy_file}\n"
        f"For your own traffic: edit policies/default.yaml, then  locum up",
        title="Yours",
    )


def wait(console: Console) -> None:
    console.print("Left running; Ctrl-C ends it.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("Ending.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end")
    parser.add_argument("--home", type=Path, default=Path(".locum/demo"), help="where the demo keeps its files")
    args = parser.parse_args()
    console = Console()
    began = time.monotonic()
    shutil.rmtree(args.home, ignore_errors=True)
    demo(args.home.resolve(), args.keep, console)
    console.print(f"Done in {(time.monotonic() - began) / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
