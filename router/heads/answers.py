"""An answer as a head gives it: one value a field, each from a closed set.

A label is one field without a name. JSON has one for each of its leaves, a call of a tool its name and its arguments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson

LONGEST = 200
"""Characters of a value that comes from a closed set; what is longer was written for its request."""
MOST_FIELDS = 16
TOOL = "tool"
"""The field that names the tool which is called."""

Fields = tuple[tuple[str, str], ...]


def fields_of(message: Mapping[str, Any]) -> Fields | None:
    """The answer's fields with their values, by name; None where it is none that a closed set has: empty, long, several
    calls, or more than text. JSON says the same however it is laid out; white space around a label says nothing."""
    calls, content = message.get("tool_calls"), message.get("content")
    if calls:
        function = calls[0].get("function") if len(calls) == 1 and isinstance(calls[0], dict) else None
        if not isinstance(function, dict) or content:
            return None
        arguments = _leaves(_json(str(function.get("arguments") or "{}")), "arguments")
        return _kept({TOOL: str(function.get("name")), **arguments} if arguments is not None else None)
    if not isinstance(content, str) or not content.strip():
        return None
    said = content.strip()
    if said[0] in "{[" and (leaves := _leaves(_json(said), "")) is not None:
        return _kept(leaves)
    return _kept({"": said})


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _leaves(value: Any, name: str) -> dict[str, str] | None:
    """Each leaf by its path; None where there are too many, or it is no object or list."""
    if not isinstance(value, dict | list):
        return None
    found: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [(name, value)]
    while waiting:
        path, one = waiting.pop()
        inner = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        if inner:
            waiting += [(f"{path}.{key}" if path else str(key), each) for key, each in inner]
        else:
            found[path] = orjson.dumps(one).decode()
        if len(found) > MOST_FIELDS or len(waiting) > MOST_FIELDS:
            return None
    return found


def _kept(fields: dict[str, str] | None) -> Fields | None:
    if not fields or any(len(value) > LONGEST for value in fields.values()):
        return None
    return tuple(sorted(fields.items()))


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """How closed answers are: how many were looked at and how many ``open`` ones were among them, how often each other
    one was there, the most frequent first."""

    answers: int
    open: int
    times: tuple[tuple[Fields, int], ...]

    @classmethod
    def of(cls, answers: Iterable[Fields | None]) -> Self:
        seen = Counter(answers)
        none = seen.pop(None, 0)
        times = tuple((fields, n) for fields, n in seen.most_common() if fields is not None)
        return cls(sum(seen.values()) + none, none, times)

    @property
    def distinct(self) -> int:
        return len(self.times)

    @property
    def unseen(self) -> float:
        """The chance that the next answer is a new one: the share of those that were there once (Good 1953, with
        Turing), open ones among them. 1 where nothing was looked at."""
        once = sum(n == 1 for _, n in self.times)
        return (once + self.open) / self.answers if self.answers else 1.0
