"""Is the student's answer as good as the teacher's? The judges that need no model.

Each compares two messages of the chat-completions wire. Where the teacher called tools the student must
have called the same ones with equal arguments, and the text does not matter; a student that called tools
where the teacher did not is not acceptable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import orjson

from router.errors import LocumError

Message = Mapping[str, Any]

_FENCE = re.compile(r"\A\s*```[\w+-]*[ \t]*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_NUMBER = re.compile(r"(?:(?<![\w)])[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?")
_AROUND = " \t\r\n.,;:!?\"'`´“”‘’«»„()[]*_"


def acceptable(name: str, student: Message, teacher: Message) -> bool:
    """Whether judge ``name`` finds the student's message as good as the teacher's.

    Raises:
        LocumError: there is no such judge.
    """
    try:
        judge = JUDGES[name]
    except KeyError:
        raise LocumError(f"no judge {name!r}: there are {', '.join(JUDGES)}") from None
    calls, wanted = _calls(student), _calls(teacher)
    if calls or wanted:
        return calls == wanted
    return judge(student, teacher)


def exact(student: Message, teacher: Message) -> bool:
    """The same text, byte for byte."""
    return text(student) == text(teacher)


def normalised(student: Message, teacher: Message) -> bool:
    """The same text but for case, white space, code fences, and quotes and punctuation around it."""
    wanted = _normal(text(teacher))
    return bool(wanted) and _normal(text(student)) == wanted


def json(student: Message, teacher: Message) -> bool:
    """The same JSON value, whatever the order of keys; numbers by value. Text that is no JSON never passes."""
    try:
        return _equal(_parse(text(student)), _parse(text(teacher)))
    except orjson.JSONDecodeError:
        return False


def numeric(student: Message, teacher: Message) -> bool:
    """The last number of the text is the same."""
    wanted, given = _last_number(text(teacher)), _last_number(text(student))
    return wanted is not None and given is not None and math.isclose(wanted, given, rel_tol=1e-9, abs_tol=1e-12)


JUDGES: Mapping[str, Callable[[Message, Message], bool]] = MappingProxyType(
    {"exact": exact, "normalised": normalised, "json": json, "numeric": numeric}
)


def text(message: Message) -> str:
    """A message's text: its content, or its text parts joined."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, Mapping))
    return content if isinstance(content, str) else ""


def _calls(message: Message) -> list[tuple[str, Any]]:
    """The tools called, by name and parsed arguments, in an order of their own."""
    functions = [c.get("function") for c in message.get("tool_calls") or () if isinstance(c, Mapping)]
    calls = [(str(f.get("name")), _arguments(f.get("arguments"))) for f in functions if isinstance(f, Mapping)]
    return sorted(calls, key=lambda c: (c[0], orjson.dumps(c[1], option=orjson.OPT_SORT_KEYS)))


def _arguments(arguments: Any) -> Any:
    try:
        return orjson.loads(arguments) if isinstance(arguments, str) else arguments
    except orjson.JSONDecodeError:
        return arguments


def _normal(value: str) -> str:
    return " ".join(_unfenced(value).casefold().split()).strip(_AROUND)


def _unfenced(value: str) -> str:
    fenced = _FENCE.match(value)
    return fenced.group(1) if fenced else value


def _parse(value: str) -> Any:
    return orjson.loads(_unfenced(value))


def _equal(a: Any, b: Any) -> bool:
    """Equal as JSON: unlike in Python, true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _last_number(value: str) -> float | None:
    found = [m.group() for m in _NUMBER.finditer(value) if m.group()]
    return float(found[-1].replace(",", "")) if found else None
