"""What ``locum judge`` does: measures a judge against people's verdicts, and gets pairs for people to judge."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from router.errors import JudgeError, PolicyError
from router.judges.judge import Judges
from router.judges.measure import JudgeAgreement, Rate
from router.judges.models import judges_alone
from router.judges.pair import Verdict, text
from router.policy.judges import AnyJudge, Judge
from router.policy.policy import Policy, load_policy
from router.reports.human_verdicts import JudgedLine, read_verdicts, sample, write_sample
from router.reports.terminal import Terminal
from router.scoring.text.encoder import load_encoder
from router.settings import Settings
from router.store.access import reading

IN_FLIGHT = 8
EXCERPT_CHARS = 160


@dataclass(frozen=True, slots=True)
class CheckedPair:
    """What people and the judge said of one pair; ``failed`` says why the judge gave no verdict, where it broke."""

    judged: JudgedLine
    verdict: Verdict
    failed: str | None = None

    @property
    def both(self) -> tuple[bool, bool | None]:
        return self.judged.human, self.verdict.acceptable


def check(
    policy_path: Path, verdicts: Path, *, judge: str | None, settings: Settings, console: Console | None = None
) -> JudgeAgreement:
    """Prints how well the policy's judge (or ``judge``, as a policy would name it) agrees with people.

    Raises:
        PolicyError: the policy or the judge is wrong.
        JudgeError: the file has no verdict, or wrong lines; or the judge fails on every pair.
    """
    out = console or Terminal()
    policy = load_policy(policy_path)
    if judge is not None:
        policy = policy.model_copy(update={"judge": parse_judge(judge)})
    pairs, unjudged = read_verdicts(verdicts)
    if not pairs:
        raise JudgeError(f'{verdicts} holds no human verdict: fill in "verdict" of its {unjudged} lines first')
    found = asyncio.run(_ask(policy, pairs, settings, out))
    failures = [f for f in found if f.failed]
    if len(failures) == len(found):
        raise JudgeError(f"the judge failed on every pair: {failures[0].failed}")
    measured = JudgeAgreement.of(f.both for f in found)
    _show(out, policy, found, unjudged)
    return measured


def take_sample(policy_path: Path, out: Path, *, count: int, seed: int, settings: Settings) -> int:
    """Writes audited pairs of the policy's log for people to judge; returns how many.

    Raises:
        PolicyError: the policy is wrong.
        JudgeError: there is no pair, or the file cannot be written.
    """
    policy = load_policy(policy_path)
    with reading(settings) as log:
        found = sample((record for _, record in log.records(policy=policy.name)), count, seed)
    if not found:
        raise JudgeError(
            f"no audited pair of policy {policy.name} with its text is in {settings.records_db}: "
            "audits need audit.rate above 0, texts log.text: true"
        )
    return write_sample(found, out)


def parse_judge(value: str) -> AnyJudge:
    """A judge as a policy would name it: a name alone, or settings as YAML or JSON.

    Raises:
        PolicyError: it is none.
    """
    try:
        found: AnyJudge = TypeAdapter(Judge).validate_python(yaml.safe_load(value))
    except yaml.YAMLError as e:
        raise PolicyError(f"--judge is not valid YAML: {e}") from e
    except ValidationError as e:
        where = "; ".join(f"{'.'.join(map(str, x['loc'])) or 'judge'}: {x['msg']}" for x in e.errors())
        raise PolicyError(f"--judge: {where}") from e
    return found


async def _ask(policy: Policy, pairs: Sequence[JudgedLine], settings: Settings, out: Console) -> list[CheckedPair]:
    """In the file's order; a bar shows how far it is where a verdict takes its time."""
    async with judges_alone(policy, os.environ, lambda: load_encoder(settings.cache)) as judges:
        for judged in pairs:
            judges.learn(judged.line.task, judged.line.pair.teacher)
        slow = not all(judges.immediate(judged.line.task) for judged in pairs)
        slots = asyncio.Semaphore(IN_FLIGHT)
        with Progress(console=out, disable=not (slow and out.is_terminal), transient=True) as progress:
            bar = progress.add_task("Judging", total=len(pairs))

            async def one(judged: JudgedLine) -> CheckedPair:
                async with slots:
                    found = await _found(judges, judged)
                progress.advance(bar)
                return found

            return list(await asyncio.gather(*map(one, pairs)))


async def _found(judges: Judges, judged: JudgedLine) -> CheckedPair:
    try:
        return CheckedPair(judged, await judges.verdict(judged.line.pair))
    except JudgeError as e:
        return CheckedPair(judged, Verdict(None, usd=e.usd), failed=str(e))


def _show(out: Console, policy: Policy, found: Sequence[CheckedPair], unjudged: int) -> None:
    measured = JudgeAgreement.of(f.both for f in found)
    left = f", {unjudged} lines not judged by people left out" if unjudged else ""
    out.print(Text.assemble((_judges(policy), "bold"), f" against people on {len(found)} pairs{left}"))
    out.print(_confusion(measured))
    out.print(_rates(measured))
    tasks = sorted({f.judged.line.task or "" for f in found})
    if len(tasks) > 1:
        out.print(_by_task(found, tasks))
    if asked := _asked(found):
        out.print(asked)
    for f in found:
        if f.verdict.acceptable is not f.judged.human:
            out.print(_disagreement(f))


def _judges(policy: Policy) -> str:
    others = "".join(f", {task}: {judge.label}" for task, judge in policy.judge.tasks.items())
    return policy.judge.label + others


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _confusion(m: JudgeAgreement) -> Table:
    table = _table("", "", "judge: acceptable", "judge: not")
    table.add_row("people: acceptable", str(m.both), str(m.only_human))
    table.add_row("people: not", str(m.only_judge), str(m.neither))
    if m.silent:
        table.caption, table.caption_justify = f"no verdict from the judge: {m.silent} (counted nowhere else)", "left"
    return table


def _rates(m: JudgeAgreement) -> Table:
    table = _table("", "", "", "of", "95% interval", "by")
    for name, rate, by in (
        ("agreement", m.agreement, "Wilson"),
        ("precision of acceptable", m.precision, "Clopper-Pearson"),
        ("recall of acceptable", m.recall, "Clopper-Pearson"),
        ("passed, of what people refuse", m.false_acceptance, "Clopper-Pearson"),
        ("acceptable by people", Rate.wilson(m.both + m.only_human, m.n), "Wilson"),
        ("acceptable by the judge", Rate.wilson(m.both + m.only_judge, m.n), "Wilson"),
    ):
        shown = "none" if rate.value is None else f"{rate.value:.1%}"
        table.add_row(name, shown, f"{rate.hits}/{rate.of}", f"{rate.low:.1%} to {rate.high:.1%}", by)
    table.add_row("Cohen's kappa", _kappa(m), "", "", "")
    return table


def _kappa(m: JudgeAgreement) -> str:
    return "undefined" if m.kappa is None else f"{m.kappa:.3f}"


def _by_task(found: Sequence[CheckedPair], tasks: Sequence[str]) -> Table:
    table = _table("By task", "task", "pairs", "agreement", "kappa", "no verdict")
    for task in tasks:
        m = JudgeAgreement.of(f.both for f in found if (f.judged.line.task or "") == task)
        agreed = "" if m.agreement.value is None else f"{m.agreement.value:.1%}"
        table.add_row(task or "(none)", str(m.n + m.silent), agreed, _kappa(m), str(m.silent))
    return table


def _asked(found: Sequence[CheckedPair]) -> Text:
    """What a model cost, how often place decided, and on what the judge failed; empty where nothing was asked."""
    said: list[str] = []
    if steady := [f.verdict.steady for f in found if f.verdict.steady is not None]:
        said.append(f"the same in both orders: {sum(steady)} of {len(steady)}")
    if usd := sum(f.verdict.usd for f in found):
        said.append(f"cost {usd:.4f} USD")
    if failures := [f for f in found if f.failed]:
        said.append(f"failed on {len(failures)}: {failures[0].failed}")
    return Text("; ".join(said))


def _disagreement(f: CheckedPair) -> Text:
    said: Any = {True: "acceptable", False: "not acceptable", None: "no verdict"}
    pair, at = f.judged.line.pair, f"\nline {f.judged.number}"
    by = f": people {said[f.judged.human]}, judge {said[f.verdict.acceptable]}"
    turns = (pair.request or {}).get("messages")
    asked = text(turns[-1]) if isinstance(turns, list) and turns and isinstance(turns[-1], dict) else ""
    told = Text.assemble((at, "bold"), by)
    for name, content in (("asked", asked), ("student", text(pair.student)), ("teacher", text(pair.teacher))):
        short = " ".join(content.split())
        told.append(f"\n  {name}: {short[:EXCERPT_CHARS]}{'…' if len(short) > EXCERPT_CHARS else ''}")
    return told
