"""A policy's figures as tables for the terminal: who answered, money, quality, time, learning."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from router.contracts.decision import Tier
from router.policy.policy import Policy
from router.reports.spending import AXES
from router.reports.summary import Summary, parity, quantile
from router.reports.terminal import BASE, milliseconds, share, table_of, usd


def figures(policy: Policy, summary: Summary, hours: float) -> Group:
    target = policy.objective.floor.at_least if policy.objective.floor else None
    parts = (
        _requests(summary, hours),
        _money(summary),
        _spending(summary),
        _quality(summary, target),
        _speed(summary),
        _learning(policy, summary),
    )
    return Group(*(piece for part in parts for piece in ("", part)), "")


def _requests(summary: Summary, hours: float) -> Table:
    table = table_of("answered by", "reason", "requests", "share", title=f"{summary.requests} requests in {hours:g} h")
    for tier in Tier:
        mine = [(reason, n) for (t, reason), n in summary.answered_by.most_common() if t is tier]
        table.add_row(tier.value, "all", str(sum(n for _, n in mine)), f"{summary.share(tier):.1%}", style="bold")
        for reason, n in mine:
            table.add_row("", reason.value, str(n), f"{n / summary.answered:.1%}")
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
    style = "bold green" if summary.saved_usd >= 0 else "bold red"
    of = f" ({summary.saved_usd / summary.counterfactual_usd:+.1%})" if summary.counterfactual_usd else ""
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
    for bundle, audits in summary.audits.items():
        found = parity(audits)
        counts = (str(found.audits), str(found.student_served), str(found.unacceptable))
        table.add_row(bundle or BASE, *counts, share(found.estimate), f"{found.low:.1%} to {found.high:.1%}")
    if not summary.audits:
        table.add_row("no audit with a verdict yet")
    if summary.missed_audits:
        causes = ", ".join(f"{cause} {n}" for cause, n in summary.missed_audits.most_common())
        table.caption, table.caption_justify = f"audits missed: {causes}", "left"
    return table


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
    if not policy.may_train_on_teacher:
        rights = policy.teacher.training_rights.value
        text.append(
            f"\ntraining on {policy.teacher.model} is {rights}: name it under "
            "teacher.i_have_the_right_to_train_on where you do have the right",
            style="yellow",
        )
    return text
