"""What a run of synthesis would do: which kinds are weak, who would be asked, and what that would cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from pathlib import Path
from statistics import mean

import orjson

from distiller.data import dataset as datasets
from distiller.data.files import read
from distiller.data.rights import right_to
from distiller.data.rows import DatasetRow
from distiller.synthesis.kinds import RequestKind, weak_kinds
from distiller.synthesis.prompts import ASKED, drawn, to_answer, to_write
from distiller.synthesis.shelf import kept
from router.backends.base import Backend
from router.backends.roster import teacher_of
from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Usage
from router.errors import PolicyError, TrainingError
from router.judges.models import judge_backends
from router.policy.judges import Judge, Llm, ToolCalls
from router.policy.policy import Policy
from router.pricing import cost_usd
from router.scoring.text.encoder import Encoder
from router.settings import Settings
from router.store.access import reading

BYTES_PER_TOKEN = 4
"""As usual in English; the teacher's own count of its answers is taken where it is known."""
JUDGE_INPUT, JUDGE_OUTPUT = 400, 120
"""Tokens that a judge's instructions take, and its word."""


def estimated_usd(kind: RequestKind, judge: Judge, teacher: Backend, judging: Mapping[str, Backend]) -> Decimal:
    """About what a kind costs if all that the teacher writes is kept; what is thrown away comes on top."""
    assert teacher.price is not None
    form = kind.forms[0]
    asked = orjson.dumps(to_write(form, drawn(form, random.Random(0)), 0))
    prompt = mean(_tokens(shot.messages[-1]["content"]) for shot in form.shots)
    before = sum(_tokens(m["content"]) for m in to_answer(form, ""))
    answer = mean(shot.teacher_tokens or _tokens(shot.answer) for shot in form.shots)
    own = judge.for_task(form.task)
    times = 1 if isinstance(own, ToolCalls) else 2
    turns = ceil(kind.wanted / ASKED)
    total = cost_usd(_usage(turns * len(asked) / BYTES_PER_TOKEN, kind.wanted * prompt), teacher.price)
    total += times * cost_usd(_usage(kind.wanted * (before + prompt), kind.wanted * answer), teacher.price)
    if isinstance(own, Llm) and (price := judging[own.label].price) is not None:
        shown = JUDGE_INPUT + before + prompt + 2 * answer
        total += 2 * cost_usd(_usage(kind.wanted * shown, kind.wanted * JUDGE_OUTPUT), price)
    return total


def _usage(input_tokens: float, output_tokens: float) -> Usage:
    return Usage(input_tokens=ceil(input_tokens), output_tokens=ceil(output_tokens))


def _tokens(text: str) -> int:
    return ceil(len(text.encode()) / BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class SynthesisPlan:
    """What would be written. ``bare`` are weak kinds that have too little to show; ``estimates`` in USD, by kind."""

    teacher: Backend
    judging: Mapping[str, Backend]
    right: str
    kinds: list[RequestKind]
    bare: list[str]
    estimates: dict[str, Decimal]
    train: list[DatasetRow]
    measured: list[DatasetRow]


def planned(
    policy: Policy,
    settings: Settings,
    env: Mapping[str, str],
    encoder: Callable[[], Encoder | None],
    *,
    folder: Path,
    per_cluster: int | None = None,
) -> SynthesisPlan:
    """Reads the log and says which kinds are weak. Asks nobody.

    Args:
        folder: where the dataset that it looks at is, or is put.

    Raises:
        TrainingError: the teacher's answers may not be trained on.
        PolicyError: nobody knows what it costs, or it has no key.
    """
    right = _right(policy)
    teacher, judging = teacher_of(policy, env), judge_backends(policy, env)
    for backend in (teacher, *judging.values()):
        if backend.lacks_key:
            raise PolicyError(f"policy {policy.name}: the environment has no API key for {backend.label}")
    found = _dataset(policy, settings, folder)
    train, measured = read(found.train), [*read(found.dev), *read(found.holdout)]
    kinds, bare = weak_kinds(train, measured, per_cluster or policy.distil.synthetic.per_cluster, encoder())
    estimates = {kind.name: estimated_usd(kind, policy.judge, teacher, judging) for kind in kinds}
    return SynthesisPlan(teacher, judging, right, kinds, bare, estimates, train, measured)


def _right(policy: Policy) -> str:
    """By what right the teacher's answers may be trained on. Raises TrainingError where there is none."""
    teacher = policy.teacher
    answer = Answer(
        tier=Tier.TEACHER, kind=AnswerKind.TRAINED, model=teacher.model, training_rights=teacher.training_rights
    )
    right = right_to(answer, policy)
    if right is None:
        raise TrainingError(
            f"policy {policy.name}: nothing is asked of {teacher.model}, since its answers may not be trained on "
            f"(training_rights: {teacher.training_rights.value}). If you have the right, say so in the policy: "
            f"teacher.i_have_the_right_to_train_on: [{teacher.model}]"
        )
    return right


def _dataset(policy: Policy, settings: Settings, folder: Path) -> datasets.Dataset:
    """The dataset that the run looks at: of one that was killed, the same as before, else of the log as it is."""
    if (folder / datasets.DATASET).is_file():
        return datasets.load(folder)
    with reading(settings) as log:
        records = (record for _, record in log.records(policy.name))
        return datasets.build(records, policy, folder, written=kept(settings, policy))
