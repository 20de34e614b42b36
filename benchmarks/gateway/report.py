"""The tables at the end."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.gateway.rounds import DIRECT
from benchmarks.harness import Row

HEADS = (
    "gateway", "CPU µs", "to raw", "to litellm", "/s", "/s a core", "p50 ms", "p99 ms", "first +ms", "own core",
    "load core", "to student", "overhead p50/p99 ms", "MB",
)  # fmt: skip


def show(rows: Sequence[Row], console: Console) -> None:
    """One table for each kind of answer and number of requests at once."""
    for kind, at_once in dict.fromkeys((r["answers"], r["at_once"]) for r in rows):
        table = Table(title=f"{kind}, {at_once} at once", title_justify="left")
        for head in HEADS:
            table.add_column(head, justify="left" if head == "gateway" else "right")
        for row in rows:
            if (row["answers"], row["at_once"]) == (kind, at_once):
                table.add_row(*_cells(row))
        console.print(table)
    if any(r.get("limited_by_load") for r in rows):
        console.print("* the mock and the generator were at their limit, the gateway was not")


def _cells(row: Row) -> list[str]:
    direct = row["name"] == DIRECT

    def told(key: str, form: str) -> str:
        return format(row[key], form) if row.get(key) is not None and not (direct and key != "load_busy") else ""

    held = f"{row['overhead_p50_ms']:.2f} / {row['overhead_p99_ms']:.2f}" if "overhead_p50_ms" in row else ""
    return [
        row["name"],
        f"({row['load_us']:.0f})" if direct else told("cpu_us", ".0f"),
        told("cpu_to_raw", ".2f"),
        told("cpu_to_litellm", ".4f"),
        f"{row['per_second']:,.0f}{'*' if row.get('limited_by_load') else ''}",
        told("capacity_per_second", ",.0f"),
        f"{row['p50_ms']:.2f}",
        f"{row['p99_ms']:.2f}",
        told("first_added_ms", ".2f"),
        told("busy", ".0%"),
        told("load_busy", ".0%"),
        f"{row['student_share']:.0%}" if row["student_share"] else "",
        held,
        told("rss_mb", ".0f"),
    ]


def show_soak(row: Row, console: Console) -> None:
    grown = f"{row['growth_mb']:+.1f} MB over {row['requests']:,} requests"
    console.print(f"{row['name']}: {grown}, after {row['warm_requests']:,} to warm up; {row['failed']} failed")
    console.print(f"MB when warm, and after each tenth: {', '.join(map(str, row['rss_mb']))}")
