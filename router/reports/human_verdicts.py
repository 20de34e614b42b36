"""Files of human verdicts: audited pairs to be judged by people, and what people said of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from router.contracts.decision import Tier
from router.contracts.records import Record
from router.errors import JudgeError
from router.judges.pair import Pair

SHOWN_ERRORS = 5


class VerdictLine(BaseModel):
    """One pair and what people found: whether the student's answer is as good as the teacher's (None: not judged).

    ``request`` is a chat-completions request, or ``prompt`` its one message; ``student`` and ``teacher`` are
    texts or assistant messages. Further fields, such as notes, are passed over.
    """

    model_config = ConfigDict(frozen=True)

    verdict: bool | Literal["acceptable", "unacceptable"] | None
    student: str | dict[str, Any]
    teacher: str | dict[str, Any]
    request: dict[str, Any] | None = None
    prompt: str | None = None
    task: str | None = None
    request_id: str | None = None

    @model_validator(mode="after")
    def one_request(self) -> VerdictLine:
        if (self.request is None) == (self.prompt is None):
            raise ValueError("give exactly one of 'request' and 'prompt'")
        return self

    @property
    def human(self) -> bool | None:
        return self.verdict == "acceptable" if isinstance(self.verdict, str) else self.verdict

    @property
    def pair(self) -> Pair:
        asked = self.request or {"messages": [{"role": "user", "content": self.prompt}]}
        return Pair(_message(self.student), _message(self.teacher), asked, self.task, self.request_id)


@dataclass(frozen=True, slots=True)
class JudgedLine:
    """A line that people judged, and where it stands in the file (from 1)."""

    number: int
    line: VerdictLine
    human: bool


def read_verdicts(path: Path) -> tuple[list[JudgedLine], int]:
    """The judged lines of a file of JSON lines, and how many are not judged yet; blank lines are passed over.

    Raises:
        JudgeError: the file cannot be read, or lines of it are wrong: which, and why.
    """
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise JudgeError(f"cannot read {path}: {e}") from e
    judged: list[JudgedLine] = []
    wrong: list[str] = []
    open_ones = 0
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = VerdictLine.model_validate_json(text)
        except ValidationError as e:
            wrong.append(f"line {number}: {_why(e)}")
            continue
        if line.human is None:
            open_ones += 1
        else:
            judged.append(JudgedLine(number, line, line.human))
    if wrong:
        more = f"; and {len(wrong) - SHOWN_ERRORS} more" if len(wrong) > SHOWN_ERRORS else ""
        raise JudgeError(f"{path}: {'; '.join(wrong[:SHOWN_ERRORS])}{more}")
    return judged, open_ones


def sample(records: Iterable[Record], count: int, seed: int) -> list[Record]:
    """Up to ``count`` audited requests of which both answers were kept, each as likely as any other (reservoir
    sampling, Vitter 1985), oldest first."""
    draw = random.Random(seed)
    kept: list[tuple[int, Record]] = []
    seen = 0
    for record in records:
        if not _has_pair(record):
            continue
        at = seen if seen < count else draw.randrange(seen + 1)
        if at < count:
            kept[at : at + 1] = [(seen, record)]
        seen += 1
    return [record for _, record in sorted(kept, key=lambda found: found[0])]


def write_sample(records: Iterable[Record], path: Path) -> int:
    """Writes the requests as lines whose verdict is open, and returns how many.

    What the judge said of them is left out: people are to judge for themselves.

    Raises:
        JudgeError: the file is there already, since people's work may be in it, or cannot be written.
    """
    lines = [json.dumps(_line(record), ensure_ascii=False) for record in records]
    try:
        with path.open("x") as file:
            file.writelines(f"{line}\n" for line in lines)
    except FileExistsError:
        raise JudgeError(f"{path} is there already, and what people wrote into it would be lost") from None
    except OSError as e:
        raise JudgeError(f"cannot write {path}: {e.strerror}") from e
    return len(lines)


def _line(record: Record) -> dict[str, Any]:
    student, teacher = (answer.message if answer else None for answer in map(record.answer_of, Tier))
    return {
        "verdict": None,
        "student": _plain(student or {}),
        "teacher": _plain(teacher or {}),
        "request": record.request,
        "task": record.task,
        "request_id": record.request_id,
    }


def _has_pair(record: Record) -> bool:
    answers = [record.answer_of(tier) for tier in Tier]
    whole = all(a is not None and a.message is not None and a.finish_reason is not None for a in answers)
    return record.decision.audited and record.usable and record.as_said(Tier.STUDENT) and whole


def _plain(message: Mapping[str, Any]) -> Any:
    """A message that is text alone as that text."""
    said = {key: value for key, value in message.items() if value is not None and key != "role"}
    return said["content"] if set(said) == {"content"} and isinstance(said["content"], str) else message


def _message(said: str | dict[str, Any]) -> Mapping[str, Any]:
    return {"role": "assistant", "content": said} if isinstance(said, str) else said


def _why(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"][:1]))
    if first["type"] == "json_invalid":
        return "no JSON"
    if where == "verdict" and first["type"] != "missing":
        return "verdict must be true, false, acceptable, unacceptable or null"
    return f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")
