"""The replay in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distiller.replay.plans import Plan
from distiller.replay.report import Choice, Replay
from router.scoring.statistics.estimates import Interval

COLUMNS = ("share", "parity", "risk", "cost", "saved_share", "cost_per_resolved")
HEADS = ("student\nshare", "parity", "selective\nrisk", "USD per\n1,000", "saved", "USD per\n1,000 good")
PER = 1000


def table(replay: Replay) -> RenderableType:
    """All that was found, each figure with its 95% interval beneath."""
    head = Table(
        title="What it would have given, in the long run", title_justify="left", box=None, padding=(0, 0, 0, 1)
    )
    head.title_style, head.header_style = "bold", "dim"
    head.add_column("")
    for name in HEADS:
        head.add_column(name, justify="right", no_wrap=True)
    for outlook in replay.policies:
        _row(head, outlook.name, outlook.lasting, "bold")
        _row(head, f" next {replay.ahead:,}", outlook.coming, "")
        _row(head, " by audits", outlook.by_audits, "dim")
    for outlook in replay.baselines:
        _row(head, outlook.name, outlook.lasting, "")
    return Group(_about(replay), "", head, "", _ways(replay), "", _small_print(replay))


def threshold_text(plan: Plan | None) -> str:
    """A plan in words."""
    if plan is None:
        return ""
    asked = "asks the student always" if plan.route <= 0 else f"asks the student from score {plan.route:.3f}"
    if plan.route > 1:
        asked = "never asks the student"
    return asked if plan.accept is None else f"{asked}, lets its answer out from {plan.accept:.3f}"


def _about(replay: Replay) -> Text:
    traffic = replay.traffic
    audits = int(traffic.audited.sum())
    text = Text.assemble(
        (f"{len(traffic):,} requests", "bold"),
        f" over {traffic.days:.1f} days, bundle {traffic.bundle or 'base'}; {audits:,} audited with a verdict",
    )
    left = [f"{n:,} {why}" for why, n in traffic.left_out.items() if n]
    text.append(f"; left out: {', '.join(left)}" if left else "")
    for outlook in replay.policies:
        text.append(f"\n{outlook.name}: {threshold_text(outlook.plan)}")
    if audits == 0:
        text.append("\nNo audit has a verdict: quality is unknown. Raise audit.rate.", style="bold yellow")
    return text


def _row(table: Table, name: str, figures: Mapping[str, Interval], style: str) -> None:
    table.add_row(name, *(_cell(column, figures[column]) for column in COLUMNS), style=style)


def _cell(column: str, interval: Interval) -> Text:
    """The estimate, and beneath it the limits, unless there is nothing to say."""
    money = column in ("cost", "cost_per_resolved")
    show, low = (_money, _money(interval.low)) if money else (_percent, f"{100 * interval.low:.1f}")
    limits = (f"\n{low}–{show(interval.high)}", "not bold dim")
    if interval.estimate is None:
        return Text("–\n") if (interval.low, interval.high) == (0.0, 1.0) else Text.assemble("unknown", limits)
    return Text.assemble(show(interval.estimate), limits if interval.low < interval.high else "\n")


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _money(value: float) -> str:
    amount = PER * value
    if not isfinite(value):
        return "∞"
    decimals = 0 if amount >= 100 else 2 if amount >= 1 else 3
    return f"{amount:.{decimals}f}" if amount >= 0.01 or amount == 0 else f"{amount:.2g}"


def _ways(replay: Replay) -> Table:
    held = (
        f"certified at {replay.confidence:.0%} by this log"
        if replay.confidence
        else "by estimate, as good as the policy is now"
    )
    table = Table(title=f"Which way is cheapest at parity {replay.target:.1%} ({held})", box=None, pad_edge=False)
    table.title_justify, table.title_style, table.header_style = "left", "bold", "dim"
    for i, name in enumerate(("", "threshold", *HEADS[:2], *HEADS[3:5])):
        table.add_column(name, justify="right" if i else "left", no_wrap=i > 0)
    best = replay.cheapest
    for choice in replay.choices:
        _choice(table, choice, choice is best)
    return table


def _choice(table: Table, choice: Choice, best: bool) -> None:
    if choice.plan is None:
        table.add_row(choice.way.value, "none holds", style="dim")
        return
    cells = [_cell(column, choice.figures[column]) for column in ("share", "parity", "cost", "saved_share")]
    threshold = choice.plan.route if choice.plan.accept is None else choice.plan.accept
    table.add_row(f"{choice.way.value}{' ← cheapest' if best else ''}", f"{threshold:.3f}", *cells, style="bold" * best)


def _small_print(replay: Replay) -> Text:
    traffic = replay.traffic
    said = (
        "Doubly robust from audits and their propensities; “by audits”: the audits alone. 95% intervals. "
        "The unasked tier's cost is an estimate: the "
        "same input; the teacher's output tokens as for what it alone would have cost, the student's by the audited "
        f"pairs' mean ratio ({traffic.output_ratio:.2f}, {traffic.pairs:,} pairs), mended by what audits found. "
        "Audits and exploration are in cost and share."
    )
    if replay.policy.judge.paid or any(judge.paid for judge in replay.policy.judge.tasks.values()):
        said += " So are verdicts, by what those in this log cost."
    if traffic.unpriced:
        said += f" What {', '.join(traffic.unpriced)} costs is not: it gave no verdict in this log."
    if traffic.third is not None:
        said += " So are samples; how many they lift is by what the bundle learned, but where the log has them."
    if not traffic.scored_answers:
        said += " The bundle's scorer is not at hand, so only routing could be replayed, not the cascade."
    return Text(said, style="dim")
