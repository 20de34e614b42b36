"""Keeps a canary or rolls it back, by its audits on live traffic beside the live student on the same prompts.

The audits are a uniform sample of what the canary's conversations asked, whichever tier served them, and the live
student is asked each of those prompts offline, so that the rows are paired as the gate's are. It is judged once, when
enough audits are there or its time is up: looking again and again until it fails would roll back equal ones.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path

from distiller.bundles import round_cost_usd, served_form
from distiller.config import Configs, GateConfig
from distiller.data.rows import DatasetRow, row_of
from distiller.evaluation.answers import StudentAnswer, StudentQuestion, read_answers
from distiller.evaluation.engine import way_to
from distiller.evaluation.gate import no_worse
from distiller.evaluation.grading import grade, live_answer, outcomes, question
from distiller.evaluation.verdicts import judge_answers
from distiller.home import one_round_at_a_time, remember
from distiller.progress import Progress, SilentProgress
from router.contracts.bundles import Canary, CanaryEnd, end_canary, read_active
from router.contracts.files import write_atomically
from router.contracts.rounds import CANARY, canaries
from router.judges.judge import Judges
from router.policy.policy import Policy
from router.scoring.text.encoder import load_encoder
from router.settings import Settings
from router.store.access import reading

ANSWERS, FOUND = "incumbent.jsonl", "found.json"


@dataclass(frozen=True, slots=True)
class TrialStatus:
    """One sentence on a canary; ``under_way``: it goes on."""

    told: str
    under_way: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """A canary under way: its audited requests with its answers to them, and why it is to be judged now, if it is."""

    canary: Canary
    live: str | None
    questions: Sequence[StudentQuestion]
    answers: Mapping[str, StudentAnswer]
    due: str | None

    @property
    def told(self) -> str:
        return f"canary {self.canary.bundle}: {len(self.questions)} audits since {_date(self.canary.began_at)}"


def look(
    policy: Policy, settings: Settings, configs: Configs | None = None, tell: Progress | None = None
) -> TrialStatus | None:
    """Ends the canary where it is time to, and notes in the history how the last one ended, whoever ended it.

    Returns:
        what there is to say of it; None where none is under way and none ended since the last look.

    Raises:
        RoundRunning: another process works on a round, or looks, in the same home.
        EngineError: the live student cannot be served.
        JudgeError: the policy's judge fails on too many answers.
    """
    with one_round_at_a_time(settings):
        trial = under_way(policy, settings)
        if trial is not None and trial.due is None:
            return TrialStatus(f"{trial.told} of {_wanted(policy)}; no round meanwhile", under_way=True)
        if trial is not None:
            TrialJudgement(policy, settings, trial, configs or Configs(), tell or SilentProgress()).end()
        ended = _remembered(policy, settings)
        return TrialStatus(told_of(ended), under_way=False) if ended else None


def under_way(policy: Policy, settings: Settings, now: float | None = None) -> Trial | None:
    """The canary of today, as its audits so far show it; None where there is none."""
    active = read_active(settings.bundles(policy.name))
    if active.canary is None:
        return None
    found = [*_audited(policy, settings, active.canary)]
    questions = [question(row) for row, _ in found]
    answers = {answer.request_id: answer for _, answer in found}
    hours = ((time.time() if now is None else now) - active.canary.began_at) / 3600
    return Trial(active.canary, active.bundle, questions, answers, _due(policy, len(questions), hours))


def told_of(ended: CanaryEnd) -> str:
    word = "kept, so that it is live" if ended.kept else "rolled back"
    return f"canary {ended.bundle} {word} at {_date(ended.at)}: {'; '.join(ended.reasons)}"


def _due(policy: Policy, audits: int, hours: float) -> str | None:
    """Why it is to be judged now."""
    trial = policy.distil.trial
    if trial is None:
        return "the policy has canaries no more"
    if audits >= trial.min_audits:
        return f"{audits} audits"
    return f"{audits} audits in {trial.max_hours:g} h" if hours >= trial.max_hours else None


def _wanted(policy: Policy) -> str:
    trial = policy.distil.trial
    return f"{trial.min_audits}, or {trial.max_hours:g} h" if trial else "none"


def _audited(policy: Policy, settings: Settings, canary: Canary) -> list[tuple[DatasetRow, StudentAnswer]]:
    """Its audited requests that both tiers answered, with its own answers."""
    versions, judges, found = frozenset({canary.bundle}), Judges(policy.judge), []
    with reading(settings) as log:
        for _, record in log.audits(policy.name, since=canary.began_at):
            own = record.bundle == canary.bundle
            answer = live_answer(record, versions, policy.student.temperature) if own else None
            row = row_of(record, policy, judges) if answer is not None else None
            if answer is not None and isinstance(row, DatasetRow):
                found.append((row, answer))
    return found


class TrialJudgement:
    """Asks the live student the same, compares, and moves the pointer. A killed one goes on where it stopped."""

    def __init__(self, policy: Policy, settings: Settings, trial: Trial, configs: Configs, tell: Progress) -> None:
        self._policy, self._settings, self._trial = policy, settings, trial
        self._configs, self._tell = configs, tell
        self._bundles = settings.bundles(policy.name)
        self._folder = _folder(policy, settings, trial.canary.bundle)

    def end(self) -> None:
        trial, began = self._trial, time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tell.stage("canary", f"asking the live student {len(trial.questions)} audited prompts")
        usd = self._ask()
        judges, known = Judges(self._policy.judge), read_answers(self._folder / ANSWERS)
        candidate, incumbent = (grade(trial.questions, answers, judges) for answers in (trial.answers, known))
        gate = self._configs.gate or GateConfig.from_policy(self._policy)
        verdict = no_worse(outcomes(trial.questions, candidate, incumbent), gate)
        cost = round_cost_usd(time.monotonic() - began, self._policy, usd)
        found = {"live": trial.live, "audits": len(trial.questions), "gate": verdict.as_dict(), "cost_usd": str(cost)}
        # For the history, before the pointer moves.
        write_atomically(self._folder / FOUND, json.dumps(found, default=str).encode())
        reasons = (f"judged by {trial.due}", *verdict.reasons)
        end_canary(self._bundles, trial.canary.bundle, kept=verdict.promoted, reasons=reasons)

    def _ask(self) -> Decimal:
        """Keeps the live student's answers, judged as far as that takes something; what the judge cost, in USD."""
        questions, kept, policy = self._trial.questions, self._folder / ANSWERS, self._policy
        known = read_answers(kept)
        if not all(q.request_id in known for q in questions):
            form = served_form(self._bundles, self._trial.live, policy.student.model)
            with way_to(form, policy, self._settings, self._configs.evaluate, self._tell.step) as asker:
                asker.ask(questions, kept)
        encoder = partial(load_encoder, self._settings.cache, "static")
        found = judge_answers(policy, questions, kept, encoder=encoder, on_verdict=self._tell.step)
        return Decimal(found["usd"])


def _remembered(policy: Policy, settings: Settings) -> CanaryEnd | None:
    """Appends to the history how the last canary ended; None where it is there already."""
    work, ended = settings.work(policy.name), read_active(settings.bundles(policy.name)).ended
    if ended is None or any((c["bundle"], c["began_at"]) == (ended.bundle, ended.began_at) for c in canaries(work)):
        return None
    folder = _folder(policy, settings, ended.bundle)
    found = json.loads((folder / FOUND).read_bytes()) if (folder / FOUND).is_file() else {}
    remember(work, {"kind": CANARY, "policy": policy.name, "cost_usd": "0", **found, **ended.model_dump()})
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def _folder(policy: Policy, settings: Settings, bundle: str) -> Path:
    return settings.work(policy.name) / f"canary-{bundle}"


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
