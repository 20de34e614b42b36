"""``locum explain``: one request's way through the proxy as a page to read, or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.contracts.decision import Tier
from router.contracts.records import Record
from router.policy.policy import load_policy
from router.reports.explanation import Explanation, Scoring, explain
from router.reports.terminal import PagePart, Terminal, shown_json
from router.scoring.parts import Parts
from router.settings import Settings
from router.store.access import reading

STRONGEST = 6
STUDENT, TEACHER = "green", "magenta"


def show(
    request_id: str, policy_paths: Sequence[Path], *, as_json: bool, settings: Settings, console: Console | None = None
) -> None:
    """Prints why a request went where it went. Policy files that are not there are passed over.

    Raises:
        PolicyError: a policy file is wrong.
        StoreError: there is no such request, or the records cannot be read.
    """
    policies = [load_policy(path) for path in policy_paths if path.exists()]
    with reading(settings) as records:
        found = explain(request_id, records, settings, policies)
    if as_json:
        sys.stdout.buffer.write(shown_json(found.as_json()) + b"\n")
        return
    (console or Terminal()).print(page(found))


def page(found: Explanation) -> RenderableType:
    parts = (_head(found), _walk(found), _score(found), _neighbours(found), _acceptance(found), _money(found))
    closing_parts = (_audit(found.record), _missing(found))
    shown_parts = [part for part in (*parts, *closing_parts) if part is not None]
    return PagePart(Group(*(piece for part in shown_parts for piece in (part, ""))))


def _grid(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i in (0, len(columns) - 1) else "right")
    return table


def _head(found: Explanation) -> Table:
    record, read = found.record, found.read
    table = _grid(f"Request {record.request_id}")
    when = datetime.fromtimestamp(record.created_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    labels = "".join(f", {name} {value}" for name, value in (("user", record.user), ("task", record.task)) if value)
    table.add_row("conversation", record.conversation_id)
    table.add_row("asked", f"{when}, policy {record.policy}{labels}, bundle {record.bundle or 'base student'}")
    if read is not None:
        table.add_row("text", Text(read.excerpt or "(none)", style="italic"))
        turns = f"{read.turns} turn{'s' if read.turns != 1 else ''}"
        table.add_row("read as", f"{read.language or 'no known'} language, about {read.input_tokens} tokens, {turns}")
    tier = record.tier
    answered = Text("; ".join(found.afterwards), style=TEACHER if tier is Tier.TEACHER else STUDENT if tier else "red")
    table.add_row("answered", answered)
    return table


def _walk(found: Explanation) -> Table:
    table = _grid("How it was decided")
    for step in found.steps:
        mark = {True: "●", False: "·", None: " "}[step.spoke]
        table.add_row(f"{mark} {step.name}", Text(step.why, style="bold" if step.spoke else "dim"))
    return table


def _score(found: Explanation) -> RenderableType | None:
    scoring, title = found.scoring, "The score: the probability that the student's answer is acceptable"
    if scoring.recorded is None and scoring.recomputed is None:
        return None
    table = _grid(title)
    table.add_row("score", _compared(scoring))
    decision = found.record.decision
    if decision.gain is not None:
        table.add_row("gain", f"{decision.gain:+.2f} (P(the teacher is right) less P(the student is))")
    if decision.worth is not None:
        table.add_row("worth", f"{decision.worth:.4f} (for the student: 0.5 where escalating gains nothing)")
    if scoring.novelty is not None:
        table.add_row("novelty", f"{scoring.novelty:.2f} (0: as what the scorer knows, 1: wholly strange)")
    table.add_row("threshold", _threshold(found))
    shown: list[RenderableType] = [table]
    if scoring.parts is not None:
        shown += ["", _parts(scoring.parts, scoring.usual)]
    if scoring.effects:
        shown += ["", _words(scoring)]
    return Group(*shown)


def _compared(scoring: Scoring) -> str:
    recorded = "none recorded" if scoring.recorded is None else f"{scoring.recorded:.4f}"
    if scoring.recomputed is None:
        return f"{recorded}; it cannot be taken apart: {scoring.why_not}"
    if scoring.same:
        return f"{recorded}, and the same when computed anew from the bundle"
    return f"{recorded}, but {scoring.recomputed:.4f} when computed anew: {scoring.why_not}"


def _threshold(found: Explanation) -> str:
    used, manifest = found.record.decision.threshold, found.manifest
    said = "none was asked" if used is None else f"{used:.4f}" if used <= 1 else "never the student"
    if manifest is None:
        return said
    evidence = manifest.thresholds.evidence
    if evidence is None:
        return f"{said}; the bundle gives no evidence"
    return (
        f"{said}; the bundle's rests on {evidence.examples} examples: risk at most {evidence.risk_bound:.1%}"
        f" at {evidence.confidence:.0%} confidence ({evidence.method})"
    )


def _parts(parts: Parts, usual: Parts | None) -> Table:
    """What each part adds, beside the average audited request: what is usual explains nothing."""
    other = usual or Parts()
    table = _table("What it is made of, in log odds", "part", "this one", "usually" if usual else "", "")
    rows = [("where every request starts", parts.bias, other.bias)]
    rows += [("structure", sum(parts.structure.values()), sum(other.structure.values()))]
    rows += [(f"    {name}", mine, its) for name, mine, its in _strongest(parts.structure, other.structure)]
    rows += [("the message's meaning", parts.message, other.message)]
    rows += [("the context's meaning", parts.context, other.context), ("words and letters", parts.ngrams, other.ngrams)]
    rows += [("the client's task tag", parts.task, other.task)]
    rows += [("judged requests like it", parts.neighbours, other.neighbours)]
    rows += [("the teacher's own doubts", parts.teacher, other.teacher)]
    for name, mine, its in rows:
        if not mine and not its:
            continue
        style = "dim" if name.startswith(" ") else ""
        table.add_row(name, f"{mine:+.2f}", f"{its:+.2f}" if usual else "", _bar(mine - its), style=style)
    together = f"then times {parts.discount:.2f}: it is strange to the scorer" if parts.discount < 1 else ""
    total = f"{other.total:+.2f}" if usual else ""
    table.add_row("all together", f"{parts.total:+.2f}", total, together, style="bold")
    return table


def _strongest(mine: Mapping[str, float], usual: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """The values of structure that differ most from the usual ones."""
    both = ((name, mine.get(name, 0.0), usual.get(name, 0.0)) for name in {**mine, **usual})
    ranked = sorted(both, key=lambda row: -abs(row[1] - row[2]))[:STRONGEST]
    return [row for row in ranked if abs(row[1] - row[2]) >= 0.005]


def _bar(value: float) -> Text:
    return Text("█" * min(24, round(4 * abs(value))), style=STUDENT if value > 0 else TEACHER)


def _words(scoring: Scoring) -> Table:
    table = _table("Words that matter most", "word", "score without it", "speaks for the")
    for effect in scoring.effects[:STRONGEST]:
        student = effect.log_odds > 0
        who = Text("student" if student else "teacher", style=STUDENT if student else TEACHER)
        table.add_row(Text(effect.word), f"{effect.score_without:.4f}", who)
    return table


def _neighbours(found: Explanation) -> Table | None:
    if not found.neighbours:
        return None
    table = _table("Judged requests most like it", "request", "similarity", "student's answer", "text")
    for near in found.neighbours:
        verdict = Text("acceptable", style=STUDENT) if near.acceptable else Text("not acceptable", style=TEACHER)
        text = Text(near.excerpt, overflow="ellipsis", no_wrap=True)
        table.add_row(near.request_id, f"{near.similarity:+.2f}", verdict, text)
    return table


def _acceptance(found: Explanation) -> Table | None:
    record = found.record
    student = record.answer_of(Tier.STUDENT)
    if student is None:
        return None
    table = _grid("The student's answer")
    signals = student.signals
    if signals is not None:
        seen = (
            f"{signals.tokens} token{'s' * (signals.tokens != 1)}{'' if signals.complete else ', the first ones only'}"
        )
        sure = f"mean log-probability {signals.mean_logprob:.3f}, least {signals.min_logprob:.3f}"
        table.add_row("certainty", f"{seen}: {sure}, first {signals.first_logprob:.3f}")
    if found.acceptance is not None:
        accept = found.manifest.thresholds.accept if found.manifest else None
        least = f"; the bundle asks for {accept:.4f}" if accept is not None and 0 < accept <= 1 else ""
        table.add_row("acceptable", f"with probability {found.acceptance:.4f}{least}")
    table.add_row("let out", f"no: {record.deferral.value}" if record.deferral else _let_out(record))
    return table


def _let_out(record: Record) -> str:
    return "yes" if record.tier is Tier.STUDENT else "no: it was asked by the audit, after the client had its answer"


def _money(found: Explanation) -> Table:
    record = found.record
    audited = record.audit.answer if record.audit else None
    table = _table("Money and time", "answer", "USD", "tokens in", "out", "seconds", "")
    for answer in filter(None, (*record.answers, audited)):
        tokens = (str(answer.usage.input_tokens), str(answer.usage.output_tokens))
        who = f"{answer.tier.value} ({answer.kind.value})"
        table.add_row(who, _usd(answer.cost_usd), *tokens, f"{answer.seconds:.3f}", answer.model)
    if record.audit and record.audit.judge_usd:
        table.add_row("judge", _usd(record.audit.judge_usd), "", "", "", record.audit.judge or "")
    table.add_row("teacher alone", _usd(record.counterfactual_usd), "", "", "", "estimate")
    saved = record.saved_usd
    style = "bold green" if saved >= 0 else "bold red"
    waited = f"{record.seconds:.3f}"
    table.add_row("saved" if saved >= 0 else "lost", _usd(saved), "", "", waited, "the whole request", style=style)
    return table


def _usd(amount: Decimal) -> str:
    return f"{amount:.6f}"


def _audit(record: Record) -> Table:
    table, audit, decision = _grid("Audit and feedback"), record.audit, record.decision
    if not decision.audited:
        said = f"not drawn (p={decision.propensity:g})"
    elif audit is None:
        said = "drawn; its outcome is not in yet"
    elif audit.missed:
        said = f"drawn, but it did not happen: {audit.missed}"
    elif audit.acceptable is None:
        said = f"drawn; the judge gave no verdict ({audit.judge or 'no judge'})"
    else:
        verdict = "as good as the teacher's" if audit.acceptable else "not as good as the teacher's"
        said = f"drawn (p={decision.propensity:g}): the student's answer is {verdict}, says {audit.judge}"
    table.add_row("audit", said)
    table.add_row("feedback", "none" if record.feedback is None else f"{record.feedback:g} (0 bad, 1 good)")
    return table


def _missing(found: Explanation) -> Table | None:
    if not found.missing:
        return None
    table = _grid("What cannot be shown")
    for what in found.missing:
        table.add_row("·", Text(what, style="yellow"))
    return table
