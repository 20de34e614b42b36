"""What forwarding costs: Locum with everything on beside bare forwarders and other gateways.

    python -m benchmarks.gateway --out benchmarks/results/gateway.json      # all, about a quarter of an hour
    python -m benchmarks.gateway --quick --only locum --only raw            # while developing

The mock model server and the load generator share one core, each gateway has another to itself. The main
figure is the gateway's CPU time per request: unlike requests per second it does not change with what else
the machine does. One million microseconds divided by it is what one core could serve.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.gateway.fitted import fit
from benchmarks.gateway.gateways import KEY, RAW, STARTS, Gateway, Place, wait_ready
from benchmarks.gateway.load import Load, Seen
from benchmarks.gateway.mock import TEACHER
from benchmarks.harness import Row, conditions, write_result
from router.settings import Settings

DIRECT = "direct (no gateway)"


@contextmanager
def running_mock(core: int) -> Iterator[tuple[int, int]]:
    """(process id, port) of a mock on this core."""
    command = [sys.executable, "-m", "benchmarks.gateway.mock", str(core)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def generate(load: Load) -> Seen:
    """Runs the generator in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gateway.load", json.dumps(asdict(load))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Seen(**json.loads(done.stdout))


def figures(seen: Seen) -> Row:
    """One round of one cell; CPU in microseconds per request, latencies in milliseconds."""
    n = max(1, seen.requests)
    cuts = statistics.quantiles(seen.latencies, n=100) if len(seen.latencies) > 1 else [0.0] * 99
    return {
        "per_second": seen.requests / seen.seconds,
        "cpu_us": 1e6 * sum(seen.workers.values()) / n,
        "p50_ms": 1e3 * cuts[49],
        "p99_ms": 1e3 * cuts[98],
        "first_ms": 1e3 * statistics.median(seen.first_bytes or [0.0]),
        "gateway_busy": sum(seen.workers.values()) / seen.seconds,
        "load_busy": (seen.mock_cpu + seen.generator_cpu) / seen.seconds,
        "load_us": 1e6 * (seen.mock_cpu + seen.generator_cpu) / n,
        "student_share": seen.by_student / n,
        "failed": seen.failed,
    }


def median_of(rounds: list[Row]) -> Row:
    return {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}


def measure(args: argparse.Namespace, console: Console) -> list[Row]:
    cores = sorted(os.sched_getaffinity(0))
    load_core, gateway_core = cores[0], cores[min(1, len(cores) - 1)]
    wanted = [name for name in STARTS if not args.only or any(name.startswith(o) for o in args.only)]
    cells = [(streamed, c) for streamed in (False, True) for c in args.concurrency]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locum-gateway-")))
        mock_pid, upstream = stack.enter_context(running_mock(load_core))
        with console.status("Fitting a scorer"):
            scorer, routes = fit(Settings.from_env().cache)
        place = Place(folder, upstream, frozenset({gateway_core}), scorer, routes)
        gateways: list[Gateway] = []
        for name in wanted:
            with console.status(f"Starting {name}"):
                gateways.append(STARTS[name](place))
                stack.callback(gateways[-1].stop)
                wait_ready(gateways[-1])
        base = Load(
            port=upstream, model=TEACHER, key=KEY, streamed=False, concurrency=1, mock=mock_pid,
            cores=(load_core,), warm_seconds=args.warm, seconds=args.seconds,
        )  # fmt: skip
        loads = [(DIRECT, base)]
        loads += [(g.name, replace(base, port=g.port, model=g.model, gateway=g.process.pid)) for g in gateways]
        found: dict[tuple[str, bool, int], list[Row]] = {}
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("", total=args.rounds * len(cells) * len(loads))
            for n in range(args.rounds):
                for streamed, c in cells:
                    for name, load in loads:
                        progress.update(task, description=f"round {n + 1}: {name}, {c} at once")
                        seen = generate(replace(load, streamed=streamed, concurrency=c))
                        if seen.problem:
                            console.print(f"[red]{name}: {seen.failed} failed: {seen.problem}")
                        found.setdefault((name, streamed, c), []).append(figures(seen))
                        progress.advance(task)
        memory = {g.name: g.rss_mb for g in gateways}
    rows = []
    for (name, streamed, c), rounds in found.items():
        row = {"name": name, "streamed": streamed, "concurrency": c, **median_of(rounds)}
        rows.append({**row, "rss_mb": memory.get(name, 0.0)})
    return rows


def show(rows: list[Row], console: Console) -> None:
    table = Table(title="Gateway CPU per request, µs; requests per second; latency, ms")
    for head in ("gateway", "answers", "at once", "CPU µs", "x raw ASGI", "/s", "p50", "p99", "first", "gw core",
                 "load core", "student", "MB"):  # fmt: skip
        table.add_column(head, justify="left" if head in ("gateway", "answers") else "right")
    raw = {(r["streamed"], r["concurrency"]): r["cpu_us"] for r in rows if r["name"] == RAW}
    for r in sorted(rows, key=lambda r: (r["streamed"], r["concurrency"])):
        bare = raw.get((r["streamed"], r["concurrency"]))
        table.add_row(
            r["name"], "streamed" if r["streamed"] else "plain", str(r["concurrency"]), f"{r['cpu_us']:.0f}",
            f"{r['cpu_us'] / bare:.2f}" if bare else "", f"{r['per_second']:,.0f}", f"{r['p50_ms']:.2f}",
            f"{r['p99_ms']:.2f}", f"{r['first_ms']:.2f}", f"{r['gateway_busy']:.0%}", f"{r['load_busy']:.0%}",
            f"{r['student_share']:.0%}", f"{r['rss_mb']:.0f}",
        )  # fmt: skip
    console.print(table)


def options() -> argparse.Namespace:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--out", type=Path, help="where the result file goes; none is written without it")
    about.add_argument("--only", action="append", default=[], help="gateways whose name begins so; repeat for several")
    about.add_argument("--quick", action="store_true", help="one round of one second a cell, 16 at once")
    args = about.parse_args()
    args.rounds, args.seconds, args.warm = (1, 1.0, 0.3) if args.quick else (3, 2.5, 0.5)
    args.concurrency = [16] if args.quick else [1, 16, 64]
    return args


def main() -> None:
    args, console = options(), Console(width=None if sys.stdout.isatty() else 150)
    rows = measure(args, console)
    show(rows, console)
    if args.out:
        more: dict[str, Any] = {"rounds": args.rounds, "seconds": args.seconds}
        write_result(args.out, "gateway", conditions(**more), rows)


if __name__ == "__main__":
    main()
