"""What forwarding costs: Locum with everything on beside bare forwarders and other gateways.

    python -m benchmarks.gateway --out benchmarks/results/gateway.json     # everything, about 15 minutes
    python -m benchmarks.gateway --quick --only locum --only raw           # half a minute, while developing
    python -m benchmarks.gateway --soak 200000                             # memory under a long load

Three rows are Locum, with a fitted scorer, a day's budget, audits, metrics, and records with redacted
text: "locum" sends about 80% of the requests to the student, the others all or none of them.

A mock model server and a load generator share one core, each gateway has another to itself. The main
figure is the gateway's CPU time per request, user and system, all of its threads and processes; a busy
machine changes it less than requests per second. One million microseconds divided by it is what one core
could serve. "direct" is the generator and the mock alone: their ceiling.

Start it in the folder whose Locum is to be measured. nginx is compared if it is installed; LiteLLM's
proxy is installed into the cache folder the first time.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.gateway import report
from benchmarks.gateway.load import KINDS
from benchmarks.gateway.mock import PACE_SECONDS
from benchmarks.gateway.others import litellm_version
from benchmarks.gateway.rounds import STARTS, Cores, Plan, measure
from benchmarks.gateway.soak import soak
from benchmarks.harness import Row, conditions, write_result


def options(given: Sequence[str] | None = None) -> argparse.Namespace:
    about = argparse.ArgumentParser(
        prog="python -m benchmarks.gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(f'"{name}"' for name in STARTS)
    about.add_argument("--out", type=Path, help="the result file; without it only the table is shown")
    about.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help=f"only gateways whose name begins so; repeat for several; there are {known}",
    )  # fmt: skip
    about.add_argument("--quick", action="store_true", help="one round, one second a cell, 16 requests at once")
    about.add_argument(
        "--soak", type=int, metavar="REQUESTS", help="instead: memory before and after so many requests to Locum"
    )
    args = about.parse_args(given)
    args.names = [n for n in STARTS if not args.only or any(n.startswith(o) for o in args.only)]
    if not args.names:
        about.error(f"no gateway's name begins with {' or '.join(args.only)}; there are {known}")
    return args


def plan_of(args: argparse.Namespace) -> Plan:
    if args.quick:
        return Plan(args.names, rounds=1, seconds=1.0, warm_seconds=0.3, concurrency=(16,))
    return Plan(args.names)


def where(plan: Plan, skipped: dict[str, str]) -> Row:
    """The result file's conditions."""
    cores = Cores()
    return conditions(
        rounds=plan.rounds,
        seconds_a_cell=plan.seconds,
        figures="medians of the rounds; cpu_us is the gateway's user and system time per request",
        answers="32 tokens of usage-reported text; streams of 32 chunks, written one by one; in a paced stream"
        f" one every {1e3 * PACE_SECONDS:g} ms",
        placement="mock and generator on one core, the gateway on another",
        two_workers="two workers on both cores of the machine, shared with mock and generator"
        if cores.shared
        else "two workers on two cores of their own",
        locum="scorer, metrics, records with redaction, client keys, budget and audits on; hold_tokens 24, so first"
        " tokens are compared in the row 'locum, teacher', which holds none back",
        litellm=litellm_version(),
        skipped=skipped,
        kinds=list(KINDS),
    )


def main() -> None:
    args = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, as by Ctrl-C
    console = Console(width=None if sys.stdout.isatty() else 160)
    if args.soak:
        rows, skipped, plan = [soak(args.soak, console)], dict[str, str](), Plan(["locum"], rounds=1)
        report.show_soak(rows[0], console)
    else:
        plan = plan_of(args)
        rows, skipped = measure(plan, console)
        report.show(rows, console)
    if args.out:
        write_result(args.out, "gateway", where(plan, skipped), rows)


if __name__ == "__main__":
    main()
