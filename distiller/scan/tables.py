"""The day-one report for the terminal."""

from __future__ import annotations

from decimal import Decimal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distiller.scan.outlook import AHEAD, CONFIDENCE, FLOORS
from distiller.scan.report import Scan, language_model_line, next_steps, policy_text, rights_lines
from router.reports.terminal import date, share, table_of
from router.scoring.statistics.estimates import Interval

MOST_MODELS = 8


def report(scan: Scan) -> Group:
    parts: list[RenderableType] = [reading(scan), kinds(scan), floors(scan), Text(notes(scan)), money(scan)]
    parts += [Text(language_model_line(scan)), rights(scan), steps(scan), Text(policy_text(scan))]
    return Group(*(piece for part in parts for piece in ("", part)), "")


def reading(scan: Scan) -> Table:
    sums = scan.sums
    table = table_of("read", "", title=headline(scan))
    table.add_row("lines", f"{sums.lines:,}")
    for source, times in sums.sources.most_common():
        table.add_row(f"calls, {source.value}", f"{times:,}")
    for reason, times in sums.skipped.most_common():
        table.add_row(f"not used: {reason.value}", f"{times:,}", style="dim")
    return table


def headline(scan: Scan) -> str:
    sums = scan.sums
    span = ""
    if sums.first_at is not None and sums.last_at is not None and scan.days is not None:
        span = f", {date(sums.first_at)} to {date(sums.last_at)} ({scan.days:,.1f} days)"
    looked = f"; a sample of {scan.rows:,} is looked at" if scan.rows < sums.calls else ""
    return f"{sums.calls:,} calls{span}{looked}"


def kinds(scan: Scan) -> Table:
    floor = [f"at {floor:.2f}" for floor in FLOORS]
    table = table_of("kind of requests", "requests", "money", "answers", "unseen", *floor, title="Kinds of requests")
    total = sum(scan.kind_usd, Decimal(0))
    for one, usd in zip(scan.outlook.kinds, scan.kind_usd, strict=True):
        carried = [share(c.share.estimate) if c.share.estimate else "none" for c in one.carried] or [one.why, "", ""]
        distinct = f"{one.answers.distinct:,}" if one.answers.distinct else "none"
        money_share = share(float(usd / total)) if total else ""
        count = len(one.kind.rows)
        table.add_row(one.kind.name, f"{count:,}", money_share, distinct, share(one.answers.unseen), *carried)
    return table


def floors(scan: Scan) -> Table:
    table = table_of(
        "floor of parity", "of all requests", "wrong there", "USD saved a month", title="What heads would have carried"
    )
    for carried in scan.outlook.carried:
        saved = scan.saved_usd(carried)
        table.add_row(
            f"{carried.floor:.2f} at {CONFIDENCE:.0%}",
            limits(carried.share),
            f"{carried.wrong} of {carried.looked_at:,}",
            "no times" if saved is None else f"{saved.estimate:,.2f} ({saved.low:,.2f} to {saved.high:,.2f})",
        )
    return table


def notes(scan: Scan) -> str:
    """How the figures were made."""
    known = scan.outlook
    said = [
        f"Heads learnt from the first {known.learnt:,} calls ({scan.in_order}) and were certified on the next "
        f"{known.looked_at:,}, which they had not seen: the loosest threshold at which, with {CONFIDENCE:.0%} "
        f"confidence, no more requests are wrong over the next {AHEAD:,} than the floor allows. In brackets: the share "
        f"of the next {AHEAD:,} requests, 95%, if they come as these did. Right is what the log's answer says word for "
        "word, white space and JSON's layout aside. A kind's columns hold the floor for its own requests alone; the "
        "table below holds it for all requests together.",
        "Unseen: the chance that the next answer is a new one (Good and Turing).",
        "This version serves no heads yet: the figures say what one would carry.",
    ]
    if scan.agreement is not None:
        said.append(
            f"Asked the same again, the log itself gave the same closed answer {scan.agreement:.1%} of the time: "
            "no student can be better than that."
        )
    if scan.encoder is None:
        said.append("Read by words alone, without an embedding: one that was made before is used.")
    return "\n".join(said)


def limits(interval: Interval) -> str:
    if interval.estimate is None:
        return ""
    return f"{interval.estimate:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def money(scan: Scan) -> Table:
    month = scan.month_usd
    volume = f": {month:,.2f} USD a month at {scan.requests_per_day:,.0f} requests a day" if month is not None else ""
    unpriced = sum(bill.unpriced for bill in scan.sums.models.values())
    title = f"Money{volume}" + (f", without {unpriced:,} calls that no price is known for" if unpriced else "")
    table = table_of("model", "calls", "tokens read", "tokens said", "USD in the log", title=title)
    ranked = sorted(scan.sums.models.items(), key=lambda item: (-item[1].usd, -item[1].calls))
    for model, bill in ranked[:MOST_MODELS]:
        told = "no price is known" if bill.unpriced == bill.calls else f"{bill.usd:,.4f}"
        about = f" ({bill.estimated:,} estimated)" if bill.estimated else ""
        table.add_row(model, f"{bill.calls:,}", f"{bill.input_tokens:,}{about}", f"{bill.output_tokens:,}", told)
    if len(ranked) > MOST_MODELS:
        usd = sum((bill.usd for _, bill in ranked[MOST_MODELS:]), Decimal(0))
        table.add_row(f"{len(ranked) - MOST_MODELS} others", "", "", "", f"{usd:,.4f}")
    return table


def rights(scan: Scan) -> Table:
    table = Table(title="What may be trained on", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("model", "calls", "ledger", "why"):
        table.add_column(column, justify="right" if column == "calls" else "left")
    for model, calls, right, words in rights_lines(scan)[:MOST_MODELS]:
        table.add_row(model, f"{calls:,}", right.value, words)
    return table


def steps(scan: Scan) -> Text:
    said = [Text("What to do next", style="bold")]
    said += [Text(f"{n}. {step}") for n, step in enumerate(next_steps(scan), 1)]
    return Text("\n").join(said)
