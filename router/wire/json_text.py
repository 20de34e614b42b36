"""JSON as backends send it: read strictly, and leniently where that fails.

Python's servers write NaN and Infinity among probabilities, cut characters in half and count beyond 64 bits. A parser
that refuses all of an answer for that would make nothing of it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

from router.errors import UpstreamError

LONGEST_LENIENT_BYTES = 4 * 2**20
"""More is not read but strictly: Python's own parser holds everybody else up for longer."""
BOM = b"\xef\xbb\xbf"
_HALVES = re.compile(
    r"\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)
"""The escapes among which a lone half of a character is found; two that make one character belong together."""


def loads(data: bytes, *, halves: bool = False) -> tuple[Any, bool]:
    """(value, whole): ``whole`` is False where characters were lost, which then stand replaced. What is no number, or
    beyond a double's range, is None. ``halves``: those of characters cut in two are left for who has the others.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return orjson.loads(data), True
    except orjson.JSONDecodeError:
        if len(data) > LONGEST_LENIENT_BYTES:
            raise
    text = data.removeprefix(BOM).decode("utf-8", "replace")
    if not halves and "\\u" in text:
        text = _HALVES.sub(_sound, text)
    whole = "\ufffd" not in text and "\\ufffd" not in text
    try:
        return json.loads(text, strict=False, parse_constant=_nothing, parse_float=_finite, parse_int=_integer), whole
    except RecursionError as e:
        raise ValueError("nested too deeply") from e


def dumps(value: Any) -> bytes:
    """What was read, written again. Raises UpstreamError where it nests too deeply for that."""
    try:
        return orjson.dumps(value)
    except TypeError as e:
        raise UpstreamError("the backend sent something that is nested too deeply") from e


def _sound(escape: re.Match[str]) -> str:
    return "\\ufffd" if escape["half"] else escape[0]


def _nothing(_: str) -> None:
    """NaN, Infinity, -Infinity."""


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _integer(digits: str) -> int | float | None:
    """Beyond 64 bits a float, as orjson has it."""
    if len(digits) < 20 and -(2**63) <= (value := int(digits)) < 2**63:
        return value
    return _finite(digits)
