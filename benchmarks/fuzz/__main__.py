"""Everything that a client or a model server could say, at a real ``locum serve``.

    python -m benchmarks.fuzz --side clients --seconds 600 --seed 1 --out benchmarks/results/fuzz_clients.json
    python -m benchmarks.fuzz --side clients --seed 1 --only 4711      # one request of that run again

*clients*: good requests to every endpoint, made wrong, 16 at a time, while every model server is well. *upstreams*:
good requests, while the student and the teacher answer with good answers made wrong. None may bring a failure of
ours (500), silence, half an answer, a line of error in the log, another key's things, or the teacher's key; what was
served must be on record and the records readable. The exit status is 1 where something did.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.fuzz.session import AT_ONCE, SIDES, Found, fuzz
from benchmarks.harness import Row, conditions, write_result


def options(given: Sequence[str] | None = None) -> argparse.Namespace:
    about = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    about.add_argument("--side", choices=SIDES, action="append", help="one side alone; by default both, at once")
    about.add_argument("--seconds", type=float, default=60.0)
    about.add_argument("--seed", type=int, default=1)
    about.add_argument("--only", type=int, action="append", metavar="NUMBER", help="only the request of this number")
    about.add_argument("--out", type=Path, help="the result file")
    about.add_argument("--keep", type=Path, metavar="FOLDER", help="where the proxies' homes and logs stay")
    return about.parse_args(given)


def row(side: str, seed: int, found: Found) -> Row:
    return {
        "name": "locum",
        "side": side,
        "seed": seed,
        "seconds": round(found.seconds, 1),
        "requests": found.requests,
        "left_early": found.left,
        "statuses": {str(status): n for status, n in sorted(found.statuses.items())},
        "slowest_seconds": round(found.slowest_seconds, 2),
        "records": found.records,
        "faults": len(found.faults),
    }


def show(side: str, seed: int, found: Found) -> None:
    told = row(side, seed, found)
    print(f"{side}: {told['requests']} requests in {told['seconds']:g} s, seed {seed}: {told['faults']} faults")
    print(f"  statuses {told['statuses']}, {found.left} left early, {found.records} records")
    for number, what in found.faults:
        again = (
            f"  python -m benchmarks.fuzz --side {side} --seed {seed} --only {number}\n" if number is not None else ""
        )
        print(f"{again}  {what}")


def main() -> int:
    args = options()
    sides = args.side or list(SIDES)
    with tempfile.TemporaryDirectory(prefix="locum-fuzz-") as folder, ThreadPoolExecutor(len(sides)) as threads:
        home = args.keep or Path(folder)
        runs = {s: threads.submit(fuzz, s, args.seed, home / s, seconds=args.seconds, numbers=args.only) for s in sides}
        found = {side: run.result() for side, run in runs.items()}
    for side in sides:
        show(side, args.seed, found[side])
    if args.out:
        where = conditions(at_once=AT_ONCE, seconds=args.seconds, together=len(sides))
        write_result(args.out, "fuzz", where, [row(side, args.seed, found[side]) for side in sides])
    return 1 if any(f.faults for f in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
