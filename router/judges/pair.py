"""What a judge is shown, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from router.judges.checks import canonical
from router.wire.rationale import asked_in, parted

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """Both tiers' answers to one request, as messages of the chat-completions wire.

    ``request`` is the request's body, as far as it was kept; ``task`` the client's own tag. Where the teacher's text
    begins with its thoughts, what it answered is compared, with what the student did.
    """

    student: Message
    teacher: Message
    request: Mapping[str, Any] | None = None
    task: str | None = None
    request_id: str | None = None

    def __post_init__(self) -> None:
        messages = self.request.get("messages") if self.request else None
        asked = asked_in(messages if isinstance(messages, list) else ())
        if not parted(text(self.teacher), asked).rationale:
            return
        for tier in ("student", "teacher"):
            said: Message = getattr(self, tier)
            object.__setattr__(self, tier, {**said, "content": parted(text(said), asked).answer})

    @property
    def size(self) -> int:
        """How much there is to compare, in characters."""
        answers = (self.student, self.teacher)
        called = (c.get("function") for a in answers for c in a.get("tool_calls") or () if isinstance(c, Mapping))
        given = (f.get("arguments") for f in called if isinstance(f, Mapping))
        return sum(len(text(a)) for a in answers) + sum(len(a) for a in given if isinstance(a, str))


@dataclass(frozen=True, slots=True)
class Verdict:
    """``acceptable``: the student's answer is as good as the teacher's; None where the judge cannot tell.

    ``teacher_acceptable`` and ``student_acceptable``: that tier's answer is right, by a judge that can tell without
    comparing.
    ``usd`` is what asking cost (``estimated`` where nobody says), ``steady`` whether a judge that was asked twice said
    the same both times.
    """

    acceptable: bool | None
    teacher_acceptable: bool | None = None
    usd: Decimal = Decimal(0)
    steady: bool | None = None
    student_acceptable: bool | None = None
    estimated: bool = False


def text(message: Message) -> str:
    """A message's text: its content, or its text parts joined."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, Mapping))
    return content if isinstance(content, str) else ""


def calls(message: Message) -> list[tuple[str, bytes]]:
    """The tools called: name and arguments in canonical form, in an order of their own."""
    functions = [c.get("function") for c in message.get("tool_calls") or () if isinstance(c, Mapping)]
    found = (f for f in functions if isinstance(f, Mapping))
    return sorted((str(f.get("name")), _canonical(f.get("arguments"))) for f in found)


def _canonical(arguments: Any) -> bytes:
    try:
        return canonical(orjson.loads(arguments or "{}") if isinstance(arguments, str | None) else arguments)
    except orjson.JSONDecodeError:
        return str(arguments).encode()
