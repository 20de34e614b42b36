"""How long a proxy is silent while clients, or model servers, try to make it so.

Every kind of hostile body and answer (``benchmarks.hostile_kinds``) is sent to a real ``locum serve`` of one worker, by
eight clients at once. Meanwhile another process asks for ``/health/live`` again and again: its longest wait is the
silence, in which nobody else is served either. The plain body of the first row is what the machine itself costs.

    python -m benchmarks.hostile --out benchmarks/results/hostile.json    # everything, some five minutes
    python -m benchmarks.hostile --only "schema, 2**25 anyOf"
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.harness import KindsParser, Row, conditions, running, write_result
from benchmarks.hostile_kinds import KINDS, MODEL, Kind
from benchmarks.scripted import Asked, Piece, ScriptedServer

AT_ONCE = 8
TARGET_SECONDS = 0.25
PROBE_SECONDS = 0.01
PATIENCE_SECONDS = 120.0
LIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


def probe(port: int, told: Connection) -> None:
    """Asks for ``/health/live`` until told to end; then tells how many seconds each answer took."""
    waits: list[float] = []
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as found:
        told.send(None)
        while not told.poll(PROBE_SECONDS):
            began = time.perf_counter()
            found.sendall(LIVE)
            if not found.recv(65536):
                break
            waits.append(time.perf_counter() - began)
    told.send(waits)


@contextmanager
def watched(port: int) -> Iterator[list[float]]:
    """The seconds that answers took while the context lasted: filled at its end."""
    here, there = multiprocessing.Pipe()
    asking = multiprocessing.get_context("spawn").Process(target=probe, args=(port, there), daemon=True)
    asking.start()
    here.recv()
    waits: list[float] = []
    try:
        yield waits
    finally:
        time.sleep(2 * PROBE_SECONDS)
        here.send(None)
        waits += here.recv()
        asking.join()


class Client(threading.Thread):
    """One client: sends a request, reads the answer to its end, and notes its status."""

    def __init__(self, port: int, request: bytes) -> None:
        super().__init__(daemon=True)
        self._port, self._request = port, request
        self.status = 0

    def run(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_SECONDS) as found:
            head = b""
            with contextlib.suppress(OSError):  # it was refused before its end: the answer says why
                found.sendall(self._request)
            with contextlib.suppress(OSError):
                while part := found.recv(1 << 20):
                    head = head or part[:64]
            self.status = int(head[9:12] or 0)


def request_of(kind: Kind) -> bytes:
    body = kind.body()
    tier = b"x-locum-tier: teacher\r\n" if kind.teacher else b""
    head = (
        b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n" % kind.path.encode()
    )
    return head + tier + b"content-length: %d\r\n\r\n" % len(body) + body


def policy_of(url: str) -> Row:
    price = {"usd_per_million": {"input": 0, "output": 0}, "timeout_seconds": PATIENCE_SECONDS}
    fit = {"tools": False, "context_tokens_over": 10**9}
    return {
        "name": MODEL,
        "student": {"model": "student", "url": f"{url}/student/v1", "unfit_for": fit, **price},
        "teacher": {"model": "teacher", "url": f"{url}/teacher/v1", **price},
        "embeddings": {"model": "teacher", "url": f"{url}/teacher/v1", "usd_per_million": 0},
        "objective": {"student_share": 1.0},
        "audit": {"rate": 0, "warmup_rate": 0, "explore": 0},
    }


def measure(kinds: Sequence[Kind], folder: Path, at_once: int) -> list[Row]:
    playing = kinds[0]

    def script(asked: Asked) -> Iterable[Piece]:
        return playing.script(asked)

    rows = []
    with (
        ScriptedServer(script, ("student", "teacher")) as server,
        running(folder, policy_of(server.url), command="serve") as locum,
    ):
        port = urlsplit(locum.url).port
        assert port is not None
        for playing in kinds:  # the script plays what is sent
            request = request_of(playing)
            clients = [Client(port, request) for _ in range(at_once)]
            with watched(port) as waits:
                began = time.perf_counter()
                for client in clients:
                    client.start()
                for client in clients:
                    client.join()
                took = time.perf_counter() - began
                time.sleep(0.5)  # its record is redacted and written behind the answer
            rows.append(_row(playing, len(request), sorted({c.status for c in clients}), took, waits))
            print(_line(rows[-1]), flush=True)
    return rows


def _row(kind: Kind, size: int, statuses: list[int], took: float, waits: Sequence[float]) -> Row:
    return {
        "name": kind.name,
        "path": kind.path,
        "megabytes": round(size / 1e6, 3),
        "statuses": statuses,
        "seconds": round(took, 3),
        "silence_ms": round(1000 * max(waits), 1),
        "median_ms": round(1000 * statistics.median(waits), 2),
        "asked": len(waits),
    }


def _line(row: Row) -> str:
    size, silence = f"{row['megabytes']:8.3f} MB", f"silent {row['silence_ms']:8.1f} ms"
    return f"{row['name']:45} {size} {row['statuses']} {row['seconds']:7.2f} s, {silence}"


def table(rows: Sequence[Row]) -> Table:
    shown = Table(
        "kind", "MB", "status", "seconds", "longest silence, ms", "median, ms", title="Silence of /health/live"
    )
    for row in rows:
        style = "red" if row["silence_ms"] > 1000 * TARGET_SECONDS else ""
        statuses = " ".join(map(str, row["statuses"]))
        figures = (
            f"{row['megabytes']:.2f}",
            statuses,
            f"{row['seconds']:.2f}",
            f"{row['silence_ms']:.0f}",
            f"{row['median_ms']:.1f}",
        )
        shown.add_row(row["name"], *figures, style=style)
    return shown


def options(given: Sequence[str] | None = None) -> argparse.Namespace:
    about = KindsParser("hostile", __doc__, KINDS)
    about.add_argument("--at-once", type=int, default=AT_ONCE)
    return about.chosen(given)


def main() -> int:
    args = options()
    with tempfile.TemporaryDirectory(prefix="locum-hostile-") as folder:
        rows = measure(args.kinds, Path(folder), args.at_once)
    Console(width=140).print(table(rows))
    over = [row["name"] for row in rows if row["silence_ms"] > 1000 * TARGET_SECONDS]
    print(f"{len(rows) - len(over)} of {len(rows)} kinds are answered with less than {TARGET_SECONDS} s of silence")
    if args.out:
        where = conditions(at_once=args.at_once, workers=1, target_ms=1000 * TARGET_SECONDS)
        write_result(args.out, "hostile", where, rows)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
