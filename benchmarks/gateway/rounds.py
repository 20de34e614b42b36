"""Rounds of cells: every gateway in turn under the same load, so that a slow minute of the machine hits all."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.gateway.fitted import fit
from benchmarks.gateway.gateways import KEY, CannotStart, Gateway, Place, Start, forwarder, locum, wait_ready
from benchmarks.gateway.load import PLAIN, SLOW, STREAMED, Load, Seen
from benchmarks.gateway.mock import TEACHER
from benchmarks.gateway.others import litellm, nginx
from benchmarks.harness import Row
from router.settings import Settings
from router.store.access import open_readonly

DIRECT, RAW, LITELLM = "direct (no gateway)", "raw ASGI + aiohttp", "litellm"
STARTS: dict[str, Start] = {
    "locum": locum("mix"),
    "locum, teacher": locum("teacher"),
    "locum, student": locum("student"),
    RAW: forwarder("raw"),
    "FastAPI + aiohttp": forwarder("fastapi"),
    "nginx": nginx,
    LITELLM: litellm(),
    "locum, 2 workers": locum("mix", 2),
    f"{LITELLM}, 2 workers": litellm(2),
}
OVERHEAD_AT = 16
"""Requests at once, where a Locum's own records tell its overhead."""
SETTLE_SECONDS = 2.0
"""Before the first round each gateway gets this much of each kind, so that all its workers are warm."""
WRITTEN_SECONDS = 1.0
"""Within this a record is on disk."""


@dataclass(frozen=True)
class Plan:
    """How much is measured: ``seconds`` a cell after ``warm_seconds``, in so many rounds.

    In a slow gateway's cell, warming up and the window each last until as many requests were answered as
    are under way at once: such a gateway answers them all at about the same time, and part of that would
    tell nothing.
    """

    names: Sequence[str]
    rounds: int = 3
    seconds: float = 2.5
    warm_seconds: float = 0.5
    concurrency: Sequence[int] = (1, 16, 64)

    @property
    def cells(self) -> list[tuple[str, int]]:
        """(kind of answer, requests at once). Paced streams only at the most: they keep no gateway busy else."""
        every = [(kind, c) for kind in (PLAIN, STREAMED) for c in self.concurrency]
        return [*every, (SLOW, max(self.concurrency))]

    def load(self, kind: str, at_once: int) -> Load:
        return Load(
            port=0, model=TEACHER, key=KEY, answers=kind, concurrency=at_once,
            warm_seconds=self.warm_seconds, warm_requests=at_once, seconds=self.seconds, requests=at_once,
        )  # fmt: skip


class Cores:
    """The mock and the generator have one core, a gateway of one worker has another.

    A gateway of two workers gets two more where there are so many; on a machine of two cores it has both,
    and shares them with the mock and the generator.
    """

    def __init__(self) -> None:
        self.all = sorted(os.sched_getaffinity(0))
        self.load = self.all[:1]
        self.shared = len(self.all) < 3

    def gateway(self, workers: int) -> frozenset[int]:
        if workers == 1:
            return frozenset(self.all[1:2] or self.all)
        return frozenset(self.all[:2] if self.shared else self.all[1 : workers + 1])

    def beside(self, workers: int) -> list[int]:
        """The mock's and the generator's, beside a gateway of so many workers."""
        return self.all if self.shared and workers > 1 else self.load


@contextmanager
def running_mock(core: int) -> Iterator[tuple[int, int]]:
    """(process id, port) of a mock on this core."""
    command = [sys.executable, "-m", "benchmarks.gateway.mock", str(core)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.terminate()


def generate(load: Load) -> Seen:
    """Runs the generator in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gateway.load", json.dumps(asdict(load))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Seen(**json.loads(done.stdout))


@dataclass
class Bench:
    """The mock and the gateways that could be started; ``skipped`` says why others could not."""

    mock: tuple[int, int]
    cores: Cores
    gateways: list[Gateway]
    skipped: dict[str, str]

    def seen(self, gateway: Gateway | None, load: Load) -> Seen:
        """One cell; ``gateway`` None is the mock itself."""
        pid, port = self.mock
        beside = self.cores.beside(gateway.workers if gateway else 1)
        os.sched_setaffinity(pid, beside)
        load = replace(load, mock=pid, port=port, cores=tuple(beside))
        if gateway is not None:
            load = replace(load, port=gateway.port, model=gateway.model, gateway=gateway.process.pid)
        return generate(load)


@contextmanager
def bench(names: Sequence[str], console: Console) -> Iterator[Bench]:
    """Starts the mock and the named gateways; ends them all."""
    cores = Cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locum-gateway-")))
        mock = stack.enter_context(running_mock(cores.load[0]))
        with console.status("Fitting a scorer"):
            scorer, routes = fit(Settings.from_env().cache)
        made = Bench(mock, cores, [], {})
        for name in names:
            place = Place(folder, mock[1], cores.gateway(2 if "2 workers" in name else 1), scorer, routes)
            try:
                with console.status(f"Starting {name}"):
                    gateway = STARTS[name](name, place)
                    stack.callback(gateway.stop)
                    wait_ready(gateway)
                made.gateways.append(gateway)
            except CannotStart as e:
                made.skipped[name] = str(e)
                console.print(f"[yellow]{name} is left out:[/] {e}", highlight=False)
        yield made


def measure(plan: Plan, console: Console) -> tuple[list[Row], dict[str, str]]:
    """(one row for each gateway and cell, medians over the rounds; why what was left out was)."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    with bench(plan.names, console) as running:
        settle(running, plan, console)
        with Progress(console=console, transient=True) as progress:
            cells = [
                (n, kind, c, gateway)
                for n in range(plan.rounds)
                for kind, c in plan.cells
                for gateway in (None, *running.gateways)
                if gateway is None or gateway.workers <= c
            ]
            for n, kind, c, gateway in progress.track(cells, description="Measuring"):
                name = gateway.name if gateway else DIRECT
                progress.update(progress.task_ids[0], description=f"Round {n + 1}: {name}, {kind}, {c} at once")
                seen = running.seen(gateway, plan.load(kind, c))
                if seen.problem:
                    console.print(f"[red]{name}, {kind}: {seen.failed} failed:[/] {seen.problem}", highlight=False)
                row = figures(seen)
                if gateway and gateway.home and c == OVERHEAD_AT:
                    row |= overhead(gateway.home, seen, streamed=kind != PLAIN)
                found.setdefault((name, kind, c), []).append(row)
        known = {g.name: {"workers": g.workers, "rss_mb": round(g.rss_mb, 1)} for g in running.gateways}
    rows = [
        {"name": name, "answers": kind, "at_once": c, **known.get(name, {}), **median_of(rounds)}
        for (name, kind, c), rounds in found.items()
    ]
    return compared(rows), running.skipped


def settle(running: Bench, plan: Plan, console: Console) -> None:
    for gateway in running.gateways:
        with console.status(f"Warming up {gateway.name}"):
            for kind in (PLAIN, STREAMED):
                running.seen(gateway, replace(plan.load(kind, 16), seconds=SETTLE_SECONDS))


def figures(seen: Seen) -> Row:
    """One round of one cell. CPU is in microseconds per request, ``busy`` in cores, ``ms`` at the client."""
    n, cpu, load_cpu = max(1, seen.requests), sum(seen.workers.values()), seen.mock_cpu + seen.generator_cpu
    cuts = statistics.quantiles(seen.latencies, n=100) if len(seen.latencies) > 1 else [0.0] * 99
    return {
        "cpu_us": 1e6 * cpu / n,
        "per_second": seen.requests / max(1e-9, seen.seconds),
        "p50_ms": 1e3 * cuts[49],
        "p99_ms": 1e3 * cuts[98],
        "first_ms": 1e3 * statistics.median(seen.first_bytes or [0.0]),
        "busy": cpu / max(1e-9, seen.seconds),
        "load_busy": load_cpu / max(1e-9, seen.seconds),
        "load_us": 1e6 * load_cpu / n,
        "busiest_share": max(seen.workers.values(), default=0.0) / max(1e-9, cpu),
        "student_share": seen.by_student / n,
        "requests": seen.requests,
        "failed": seen.failed,
    }


def overhead(home: Path, seen: Seen, *, streamed: bool) -> Row:
    """What a Locum's own records say of the window: request time less the time spent waiting for upstreams."""
    time.sleep(WRITTEN_SECONDS)
    reader, found = open_readonly(Settings(home=home)), []
    for _, record in reader.records(since=seen.began_at):
        if record.created_at > seen.began_at + seen.seconds:
            break
        if record.streamed is streamed:
            found.append(record.overhead_seconds)
    reader.close()
    cuts = statistics.quantiles(found, n=100) if len(found) > 1 else [0.0] * 99
    return {"overhead_p50_ms": 1e3 * cuts[49], "overhead_p99_ms": 1e3 * cuts[98]}


def median_of(rounds: Sequence[Row]) -> Row:
    return {key: round(statistics.median(r[key] for r in rounds), 4) for key in rounds[0]}


def compared(rows: Sequence[Row]) -> list[Row]:
    """Adds to each row what it is beside others of its cell.

    ``first_added_ms``: median time to first token less that of the mock alone. ``capacity_per_second``:
    what its workers could serve with a core for each. ``limited_by_load``: the mock and the generator were at
    their limit and the gateway was not, so that its requests per second are theirs.
    """
    of = {(r["name"], r["answers"], r["at_once"]): r for r in rows}
    done = []
    for row in rows:
        cell, more = (row["answers"], row["at_once"]), {}
        if row["name"] != DIRECT:
            more["first_added_ms"] = round(row["first_ms"] - of[DIRECT, *cell]["first_ms"], 4)
            more["capacity_per_second"] = round(row["workers"] * 1e6 / max(row["cpu_us"], 1e-9), 1)
            more["limited_by_load"] = row["load_busy"] > 0.93 and row["busy"] < 0.93
        for key, other in (("cpu_to_raw", RAW), ("cpu_to_litellm", LITELLM)):
            if row["name"] != DIRECT and (beside := of.get((other, *cell))):
                more[key] = round(row["cpu_us"] / max(beside["cpu_us"], 1e-9), 4)
        alone = of.get((row["name"].removesuffix(", 2 workers"), *cell))
        if alone and alone is not row:
            more["per_second_to_one_worker"] = round(row["per_second"] / max(alone["per_second"], 1e-9), 3)
            more["cpu_to_one_worker"] = round(row["cpu_us"] / max(alone["cpu_us"], 1e-9), 3)
        done.append({**row, **more})
    return done
