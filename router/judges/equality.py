"""Judges that compare: the same text, number, JSON value or tool calls. They need nothing but the pair."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from router.judges.base import PairJudge
from router.judges.checks import canonical, referred
from router.judges.pair import Pair, Verdict, calls, text
from router.judges.schema import fits, schema_of

_FENCE, _INFO = "```", re.compile(r"[\w+-]*[ \t]*\n")
_NUMBER = re.compile(r"(?:(?<![\w)])[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?")
_AROUND = " \t\r\n.,;:!?\"'`´“”‘’«»„()[]*_"


class Equality(PairJudge):
    """What one of the functions here says."""

    def __init__(self, compare: Callable[[Pair], Verdict]) -> None:
        self._compare = compare

    def now(self, pair: Pair) -> Verdict:
        return self._compare(pair)


class JsonJudge(PairJudge):
    """The same JSON value, whatever the order of keys; numbers by value. Text that is no JSON never passes.

    Where the request asks for a schema neither may break it, and an answer that does is wrong whatever the other
    tier said. The order of an array counts unless its schema says ``uniqueItems``;
    with ``sets`` it never does.
    """

    absolute = True

    def __init__(self, *, sets: bool = False) -> None:
        self._sets = sets

    def now(self, pair: Pair) -> Verdict:
        schema = schema_of(pair.request or {})
        wanted, given = _value(text(pair.teacher), schema), _value(text(pair.student), schema)
        student = False if given is None and schema is not None else None
        if wanted is None:
            teacher = None if schema is None else False
            return Verdict(False, teacher_acceptable=teacher, student_acceptable=student)
        if given is None:
            return Verdict(False, student_acceptable=student)
        root = schema or {}
        same = canonical(_ordered(given[0], root, root, self._sets)) == canonical(
            _ordered(wanted[0], root, root, self._sets)
        )
        return Verdict(same)


def exact(pair: Pair) -> Verdict:
    """The same text, byte for byte."""
    return Verdict(text(pair.student) == text(pair.teacher))


def normalised(pair: Pair) -> Verdict:
    """The same text but for case, white space, code fences, and quotes and punctuation around it."""
    return Verdict(same_text(pair))


def numeric(pair: Pair) -> Verdict:
    """The last number of the text is the same."""
    wanted, given = _last_number(text(pair.teacher)), _last_number(text(pair.student))
    if wanted is None or given is None:
        return Verdict(False)
    return Verdict(math.isclose(wanted, given, rel_tol=1e-9, abs_tol=1e-12))


def tool_calls(pair: Pair) -> Verdict:
    """The same tools are called with equal arguments, in whatever order, or none by either."""
    return Verdict(calls(pair.student) == calls(pair.teacher))


def same_text(pair: Pair) -> bool:
    wanted = bare(text(pair.teacher))
    return bool(wanted) and bare(text(pair.student)) == wanted


def bare(value: str) -> str:
    """A text without case, code fences, and what stands around it."""
    return " ".join(_unfenced(value).casefold().split()).strip(_AROUND)


def _unfenced(value: str) -> str:
    """What stands in a code fence around all of the text; the text where there is none."""
    inner = value.strip()
    if len(inner) < 2 * len(_FENCE) or not (inner.startswith(_FENCE) and inner.endswith(_FENCE)):
        return value
    inner = inner[len(_FENCE) : -len(_FENCE)]
    opening = _INFO.match(inner)
    return inner[opening.end() :].rstrip() if opening else value


def _value(answer: str, schema: Mapping[str, Any] | None) -> tuple[Any] | None:
    """What the answer says in JSON; None where it is none, or breaks the schema."""
    try:
        value = orjson.loads(_unfenced(answer))
    except orjson.JSONDecodeError:
        return None
    return (value,) if schema is None or fits(value, schema) is not False else None


def _ordered(value: Any, schema: Any, root: Mapping[str, Any], sets: bool) -> Any:
    """The value with every array whose order says nothing in an order of its own.

    ``schema`` is followed through ``properties``, ``additionalProperties``, ``items`` and references into
    ``root``; below anything else arrays count as ordered.
    """
    schema = _resolved(schema, root)
    if isinstance(value, dict):
        known, rest = _part(schema, "properties"), _part(schema, "additionalProperties")
        return {key: _ordered(item, known.get(key, rest), root, sets) for key, item in value.items()}
    if isinstance(value, list):
        items = [_ordered(item, _part(schema, "items"), root, sets) for item in value]
        return sorted(items, key=canonical) if sets or schema.get("uniqueItems") is True else items
    return value


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a local reference leads to, in a few steps; an empty one where there is none."""
    for _ in range(8):
        if not isinstance(schema, Mapping):
            return {}
        if "$ref" not in schema:
            return schema
        schema = referred(root, schema["$ref"])
    return {}


def _part(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = schema.get(name)
    return found if isinstance(found, Mapping) else {}


def _last_number(value: str) -> float | None:
    found = [m.group() for m in _NUMBER.finditer(value) if m.group()]
    return float(found[-1].replace(",", "")) if found else None
