"""What a round looks like in a terminal: its progress, its report, the bundles."""

from __future__ import annotations

from pathlib import Path

from rich.table import Column, Table

from distiller.bundles import has_weights, manifests
from distiller.evaluation.report import HTML
from distiller.rounds.report import RoundReport
from distiller.rounds.tuning import share_of
from router.contracts.bundles import read_active
from router.policy.policy import Policy


def round_table(report: RoundReport) -> Table:
    """A finished round, before and after."""
    verdict = f"promoted as {report.bundle}" if report.promoted else "not published"
    table = Table(title=f"{report.kind}: {verdict}", title_justify="left", show_header=False)
    counts = report.counts
    table.add_row("trained on", f"{counts['train']} rows" if report.kind == "train" else "nothing: the same student")
    for reason, rows in report.skipped.items():
        table.add_row(f"left out: {reason}", str(rows))
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
