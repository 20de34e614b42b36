"""What a round looks like in a terminal: its progress, its report, the bundles."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from distiller.evaluation.report import HTML
from distiller.rounds.publish import has_weights, manifests
from distiller.rounds.reports import RoundReport
from distiller.rounds.tuning import share_of
from router.contracts.bundles import read_active
from router.policy import Policy


class Shown:
    """Prints each stage as it begins, and a bar while one tells how far it is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._tenth = 0
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def stage(self, name: str, detail: str = "") -> None:
        self._close()
        passed = time.monotonic() - self._start
        self._console.print(Text.assemble((f"{passed:6.0f} s", "dim"), "  ", (name, "bold"), f"  {detail}"))

    def step(self, done: int, of: int, note: str = "") -> None:
        if not self._console.is_terminal:
            self._line(done, of, note)
            return
        if self._bar is None:
            figures = (MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
            columns = (TextColumn("          "), BarColumn(), *figures)
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=of, note=note)
        self._bar.update(self._task, completed=done, total=of, note=note)

    def _line(self, done: int, of: int, note: str) -> None:
        """Where no bar can move: a line every tenth, of each thing that is counted anew."""
        if (tenth := done * 10 // max(1, of)) != self._tenth:
            self._tenth = tenth
            self._console.print(f"          {done}/{of} {note}".rstrip())

    def _close(self) -> None:
        self._tenth = 0
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def round_table(report: RoundReport) -> Table:
    """A finished round, before and after."""
    verdict = f"promoted as {report.bundle}" if report.promoted else "not published"
    table = Table(title=f"{report.kind}: {verdict}", title_justify="left", show_header=False)
    counts = report.counts
    table.add_row("trained on", f"{counts['train']} rows" if report.kind == "train" else "nothing: the same student")
    table.add_row("measured on", f"{counts['holdout']} audited requests")
    table.add_row("acceptable answers", f"{_percent(report.incumbent_rate)} -> {_percent(report.acceptable_rate)}")
    table.add_row("student share at the target", f"{report.incumbent_share:.1%} -> {report.share:.1%}")
    table.add_row("because", "\n".join(report.reasons))
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items())
    table.add_row("took", f"{took}; {report.cost_usd} USD" + (" (resumed)" if report.resumed else ""))
    if report.page:
        table.add_row("in full", report.page)
    return table


def bundle_table(bundles: Path, policy: Policy) -> Table:
    """Every complete bundle, the live one marked."""
    active = read_active(bundles)
    marks = {
        active.previous: "before",
        active.canary.bundle if active.canary else None: "canary",
        active.bundle: "live",
    }
    table = Table("", Column("bundle", no_wrap=True), "parent", "trained on", "right", "share", "USD")
    table.caption_justify, verdicts = "left", []
    for m in manifests(bundles):
        mark = marks.get(m.bundle_id, "")
        rate = m.evaluation.get("holdout", {}).get("acceptable_rate")
        verdicts += [f"…{m.bundle_id[-6:]}  {reason}" for reason in m.gate.get("reasons", ())]
        if (told := bundles / m.bundle_id / HTML).is_file():
            verdicts.append(f"…{m.bundle_id[-6:]}  {told}")
        table.add_row(
            mark,
            m.bundle_id if has_weights(bundles, m) else f"{m.bundle_id} (weights pruned)",
            f"…{m.parent[-6:]}" if m.parent else "base",
            f"{m.dataset.train} rows",
            _percent(rate),
            f"{share_of(m.thresholds, policy):.1%}",
            m.cost_usd,
        )
    table.caption = "\n".join(verdicts)
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
