"""Memory under a long load: what a Locum holds after so many requests, beside what it held when warm."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress

from benchmarks.gateway.gateways import KEY
from benchmarks.gateway.load import PLAIN, STREAMED, Load
from benchmarks.gateway.mock import TEACHER
from benchmarks.gateway.rounds import bench
from benchmarks.harness import Row

WARM_REQUESTS = 20_000
AT_ONCE, PARTS = 16, 10


def soak(requests: int, console: Console) -> Row:
    """Sends the requests to the Locum with everything on, a fifth of them streamed.

    The row has ``rss_mb`` when warm and after each tenth.
    """
    with bench(["locum"], console) as running, Progress(console=console, transient=True) as progress:
        locum = running.gateways[0]
        task = progress.add_task("Warming up", total=WARM_REQUESTS + requests)

        def send(count: int, kind: str) -> int:
            load = Load(0, TEACHER, KEY, kind, AT_ONCE, warm_seconds=0.0, seconds=0.0, requests=count)
            seen = running.seen(locum, load)
            progress.advance(task, count)
            return seen.failed

        failed = send(WARM_REQUESTS * 4 // 5, PLAIN) + send(WARM_REQUESTS // 5, STREAMED)
        held = [locum.rss_mb]
        progress.update(task, description="Sending")
        for _ in range(PARTS):
            streams = requests // PARTS // 5
            failed += send(requests // PARTS - streams, PLAIN) + send(streams, STREAMED)
            held.append(locum.rss_mb)
    return {
        "name": "locum, soak",
        "at_once": AT_ONCE,
        "warm_requests": WARM_REQUESTS,
        "requests": requests,
        "failed": failed,
        "rss_mb": [round(mb, 1) for mb in held],
        "growth_mb": round(held[-1] - held[0], 1),
    }
