"""A policy's figures as tables for the terminal: who answered, money, quality, time, learning."""

from __future__ import annotations

from itertools import islice

from rich.console import Group
from rich.table import Table
from rich.text import Text

from router.contracts.decision import Tier
from router.contracts.records import LengthBasis
from router.policy.learning import learning
from router.policy.objective import Parity
from router.policy.policy import Policy
from router.reports.quality import FloorFinding
from router.reports.spending import AXES
from router.reports.summary import Summary, quantile
from router.reports.terminal import BASE, milliseconds, share, table_of, usd

MOST_TASKS = 12
LENGTHS = {
    LengthBasis.TASK: "of it student's, by its tasks' audited lengths",
    LengthBasis.POLICY: "of it student's, by all audited lengths",
    LengthBasis.STUDENT: "of it student's, by its own lengths: too few audits",
}


def figures(policy: Policy, summary: Summary, hours: float, live: str | None) -> Group:
    """``live`` is the bundle whose tasks are told apart."""
    floor = policy.objective.floor
    parts: list[Table | Text] = [
        _requests(summary, hours),
        _money(summary),
        _spending(summary),
        _quality(summary, floor.at_least if floor else None),
        *([_floors(summary, floor, live)] if floor else []),
        _speed(summary),
        _learning(policy, summary),
    ]
    return Group(*(piece for part in parts for piece in ("", part)), "")


def _requests(summary: Summary, hours: float) -> Table:
    table = table_of("answered by", "reason", "requests", "share", title=f"{summary.requests} requests in {hours:g} h")
    answered, traffic = summary.answered_traffic, summary.answered_traffic.total()
    for tier in Tier:
        mine = [(reason, n) for (t, reason), n in summary.answered_by.most_common() if t is tier]
        every = share(answered[tier] / traffic if traffic else None)
        table.add_row(tier.value, "all", str(sum(n for _, n in mine)), every, style="bold")
        for reason, n in mine:
            counts = summary.traffic[tier, reason]
            table.add_row("", reason.value, str(n), f"{counts / traffic:.1%}" if counts else "")
    if aside := summary.answered - traffic:
        table.caption = f"share: of the traffic; {aside} requests, forced or moved by a failure, are none of it"
        table.caption_justify = "left"
    if summary.unanswered:
        table.add_row("nobody", "", str(summary.unanswered), "", style="red")
    return table


def _money(summary: Summary) -> Table:
    """Spend by tier and kind, the all-teacher counterfactual, and the signed difference."""
    table = table_of("money", "kind", "USD", title="Money, net of everything it took")
    for (tier, kind), spent in sorted(summary.spend.items()):
        table.add_row(tier.value, kind.value, usd(spent))
    table.add_row("spent", "", usd(summary.spent_usd), style="bold")
    table.add_row("teacher alone", "estimate", usd(summary.counterfactual_usd))
    for by, alone in sorted(summary.alone_by.items()):
        table.add_row("", LENGTHS[by], usd(alone), style="dim")
    style = "bold green" if summary.saved_usd >= 0 else "bold red"
    of = "" if summary.saved_share is None else f" ({summary.saved_share:+.1%})"
    if summary.embeddings:
        table.add_row("embeddings", f"{summary.embeddings} requests, beside it", usd(summary.embeddings_usd))
    if summary.estimated_usd:
        table.add_row("estimated", "of all that was spent", usd(summary.estimated_usd), style="dim")
    table.add_row("saved" if summary.saved_usd >= 0 else "lost", "", f"{summary.saved_usd:+.4f}{of}", style=style)
    return table


def _spending(summary: Summary) -> Table:
    """Who spent it, by task, user and key, the dearest first."""
    table = table_of("spent by", "", "requests", "USD", "estimated", title="Spend by task, user and key")
    for axis in AXES:
        for n, (name, line) in enumerate(summary.spending.dearest(axis)):
            estimated = usd(line.estimated_usd) if line.estimated_usd else ""
            table.add_row("" if n else axis, Text(printable(name)), str(line.requests), usd(line.usd), estimated)
    return table


def printable(name: str) -> str:
    """A client's word as a name in a table."""
    return "".join(c if c.isprintable() else "?" for c in name[:48])


def _quality(summary: Summary, target: float | None) -> Table:
    """Parity by bundle: audits of different bundles are never added up."""
    wanted = f", wanted {target:.0%}" if target else ""
    table = table_of("bundle", "audits", "student served", "unacceptable", "parity", "95% interval")
    table.title = f"Quality, from audits{wanted}"
    for bundle, quality in summary.quality.items():
        found = quality.parity()
        if found.audits:
            counts = (str(found.audits), str(found.student_served), str(found.unacceptable))
            table.add_row(bundle or BASE, *counts, share(found.estimate), f"{found.low:.1%} to {found.high:.1%}")
    if not summary.audits:
        table.add_row("no audit with a verdict yet")
    if summary.missed_audits:
        causes = ", ".join(f"{cause} {n}" for cause, n in summary.missed_audits.most_common())
        table.caption, table.caption_justify = f"audits missed: {causes}", "left"
    return table


def _floors(summary: Summary, floor: Parity, live: str | None) -> Table:
    """The floor task by task, each taken alone."""
    table = table_of("task", "audits", "student served", "parity", "between", f"floor of {floor.at_least:.4g}")
    table.title = f"By task under {live or BASE}, each taken alone, each bound at {floor.confidence:.4g}"
    found = summary.floors(live, floor)
    for task, at in islice(found.items(), MOST_TASKS):
        counts = str(at.found.audits), str(at.found.student_served)
        between = f"{at.found.low:.1%} to {at.found.high:.1%}"
        style = {"kept": "green", "broken": "red"}.get(at.verdict, "")
        table.add_row(Text(printable(task)), *counts, share(at.found.estimate), between, Text(_word(at), style))
    if len(found) > MOST_TASKS:
        table.add_row(f"and {len(found) - MOST_TASKS} more (--json has all)")
    if not found:
        table.add_row("no audit with a verdict yet")
    return table


def _word(at: FloorFinding) -> str:
    if at.verdict != "unknown":
        return at.verdict
    if at.more is None:
        return "not known, and too near to it to be told"
    return f"not known yet: about {at.more:,} audits more of what the student answers"


def _speed(summary: Summary) -> Table:
    table = table_of("milliseconds", "p50", "p95", title="Time")
    rows = [(f"{tier.value}, whole answer", summary.seconds[tier]) for tier in Tier]
    rows += [(f"{tier.value}, first token", summary.first_token_seconds[tier]) for tier in Tier]
    for name, values in (*rows, ("overhead", summary.overhead_seconds)):
        if values:
            table.add_row(name, milliseconds(quantile(values, 0.5)), milliseconds(quantile(values, 0.95)))
    return table


def _learning(policy: Policy, summary: Summary) -> Text:
    text = Text.assemble(("Learning", "bold"), f"\nescalations {summary.escalations}")
    text.append(f", teacher answers to learn from {summary.trainable}")
    text.append(f" (a round starts at {policy.distil.min_new_records} new ones)")
    if summary.redacted:
        tasks = ", ".join(f"{task} {n}" for task, n in summary.redacted.most_common(5))
        text.append(
            f"\n{summary.redacted.total()} requests hold what log.redact changes ({tasks}): nothing is learnt from "
            "them or measured by them, so what is like them stays with the teacher; log.redact_except exempts a task",
            style="yellow",
        )
    verdict = learning(policy)
    text.append(f"\nthis policy {verdict.words}", style="" if verdict.can else "yellow")
    return text
