"""Recorded questions as a log would have them, and what a student answers to them in the engine that serves.

What benchmarks of learning share: Banking77's and GSM8K's records, the policy, the asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from harness import Row
from numpy.typing import NDArray

from distiller.bundles import StudentFiles
from distiller.config import DatasetConfig
from distiller.data.rows import DatasetRow, row_of
from distiller.evaluation.answers import Asker, StudentAnswer
from distiller.evaluation.engine import NAME, serving
from distiller.evaluation.grading import question
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Record, Rights
from router.judges.judge import Judges
from router.policy.policy import Policy

SYSTEM = "Name the intent of the customer's message."
STUDENT = "smollm2-135m-instruct"
TEACHER = "recorded-labels"
DATASET = DatasetConfig(dev_share=0.02, max_rows=None)


def record(prompt: str, answer: str, at: int, *, audited: bool = False, system: str | None = SYSTEM) -> Record:
    """A message of the log, answered by the teacher; an audited one is only ever tested on."""
    messages = [{"role": "system", "content": system}] if system else []
    said = Answer(
        tier=Tier.TEACHER, kind=AnswerKind.SERVED, model=TEACHER, finish_reason="stop", training_rights=Rights.ALLOWED,
        message={"role": "assistant", "content": answer},
    )  # fmt: skip
    return Record(
        request_id=f"m{at:05d}", conversation_id=f"c{at:05d}", created_at=float(at), policy="intents",
        policy_version="1", features_version="1", tier=Tier.TEACHER, reason=Reason.SCORE,
        decision=Decision(tier=Tier.TEACHER, reason=Reason.SCORE, audited=audited, propensity=0.1),
        request={"model": "intents", "messages": [*messages, {"role": "user", "content": prompt}]}, answers=[said],
    )  # fmt: skip


def policy(teacher: str = "http://127.0.0.1:9/v1") -> Policy:
    """``teacher``: its URL, where it is asked at all."""
    price = {"input": 0.02, "output": 0.06}
    return Policy.model_validate({
        "name": "intents",
        "student": {"model": STUDENT, "engine": "embedded", "usd_per_million": price},
        "teacher": {"model": TEACHER, "url": teacher, "training_rights": "allowed",
                    "usd_per_million": price},
        "objective": {"parity": {}},
    })  # fmt: skip


def answers(
    student: StudentFiles, records: Sequence[Record], folder: Path, engine: str = "embedded"
) -> list[StudentAnswer]:
    """What the student says to each, in the records' order; what ``folder`` has kept is not asked again."""
    questions = [question(r) for r in rows_of(records)]
    folder.mkdir(parents=True, exist_ok=True)
    with serving(student, engine, folder / "engine.log") as url:
        found = Asker(url, NAME).ask(questions, folder / "answers.jsonl")
    return [found[r.request_id] for r in records]


def rows_of(records: Sequence[Record]) -> list[DatasetRow]:
    """The records as a dataset would hold them."""
    asked, judges = policy(), Judges(policy().judge)
    return [row for r in records if isinstance(row := row_of(r, asked, judges), DatasetRow)]


def rightness(said: Sequence[StudentAnswer], rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Whether each answer names its message's gold intent: (rows,)."""
    return np.array([text_of(a) == r["gold"] for a, r in zip(said, rows, strict=True)])


def text_of(answer: StudentAnswer) -> str:
    return str(answer.message.get("content") or "").strip()


def messages(rows: Sequence[Row], label: str, first: int = 0, *, audited: bool = False) -> list[Record]:
    """These rows of the file as records, answered by what ``label`` names: ``gold`` or ``gpt4``."""
    return [record(r["text"], r[label], first + i, audited=audited) for i, r in enumerate(rows)]


def worked(rows: Sequence[Row], first: int = 0, *, audited: bool = False) -> list[Record]:
    """GSM8K's rows as records of the log."""
    return [record(r["question"], r["answer"], first + i, audited=audited, system=None) for i, r in enumerate(rows)]
