"""JSON taken apart and put together wrongly: other types, extremes, copies, doubled keys, what no two parsers agree on.

A mutated value is written by ``written``, since no JSON library would: an object may hold a key twice (``Pairs``),
and anything may be raw text (``Raw``).
"""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

Value = Any
DEPTHS = (3, 40, 130, 300, 1100, 6000)
LONG = (40, 1000, 30_000, 300_000)
MOST_BYTES = 4 * 2**20
WORDS = (
    "", " ", "\x00", "null", "[DONE]", "data: [DONE]\n\n", "\r\n\r\n", "\u202eevil", "\x1b]52;c;AAAA\x07", "é" * 9,
    "👩‍👩‍👧‍👦",
    "\u2028", "\ufeff", "../../etc/passwd", "' OR 1=1 --", "{{7*7}}", "%s%n", "${jndi:x}", "a@example.com",
    "-0", "1e999", "true", "student", "teacher", "auto", "none", "required", "system", "user", "assistant", "tool",
    "developer", "function", "text", "image_url", "input_text", "output_text", "tool_use", "tool_result", "thinking",
    "json_schema", "json_object", "reasoning", "data:image/png;base64,iVBORw0KGgo=", "http://127.0.0.1:1/x.png",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 0.5, -0.0, 1e308, 5e-324, 255, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64,
    -(2**63) - 1, 10**30, 10**400,
)  # fmt: skip
UNREADABLE = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"01", b"+1", b".5", b'"\\ud83d"', b'"\\udc00\\ud83d"',
    b'"\\u0000"', b'"\xff\xfe"', b"'x'", b"{a:1}", b"[1,]", b"undefined", b'"\t\n"', b"1" * 5000, b"0." + b"3" * 3000,
    b"/**/1",
)  # fmt: skip


@dataclass(frozen=True)
class Raw:
    """Text that stands where a value should."""

    text: bytes


class Pairs(list[tuple[str, Value]]):
    """An object's keys with their values; a key may be there twice."""


def written(value: Value) -> bytes:
    """The value as JSON text, or as what was put in its place."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Pairs | dict):
        pairs = value.items() if isinstance(value, dict) else value
        return b"{" + b",".join(b"%b:%b" % (_plain(key), written(v)) for key, v in pairs) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(written, value)) + b"]"
    return _plain(value)


def _plain(value: Value) -> bytes:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**400:
        return b"1" + b"0" * 400
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def packed(data: bytes) -> bytes:
    """gzip, without the time of day."""
    return gzip.compress(data, mtime=0)


def odd(rng: Random) -> Value:
    """A value that nobody expects anywhere."""
    return rng.choice(ODD)(rng)


def noise(rng: Random) -> str:
    return "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xD7FF)))) for _ in range(rng.randrange(20)))


def nested(rng: Random) -> Raw:
    """Lists, objects, or both by turns, far inside each other."""
    depth = rng.choice(DEPTHS)
    opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"content":', b"}]")))
    return Raw(opened * depth + b"1" + closed * depth)


EMPTY = (None, True, False, [], {}, [None], [[]], {"": ""}, [{}], {"type": None})
ODD: tuple[Callable[[Random], Value], ...] = (
    lambda rng: rng.choice(WORDS),
    lambda rng: rng.choice(WORDS),
    lambda rng: rng.choice(NUMBERS),
    lambda rng: rng.choice(NUMBERS),
    lambda rng: copy.deepcopy(rng.choice(EMPTY)),
    lambda rng: Raw(rng.choice(UNREADABLE)),
    nested,
    noise,
    lambda rng: rng.choice("aé漢👾\x01") * rng.choice(LONG),
    lambda rng: [odd(rng) for _ in range(rng.randrange(6))],
    lambda rng: {rng.choice(WORDS): odd(rng) for _ in range(rng.randrange(5))},
)


def mutated(rng: Random, value: Value, others: Callable[[], Value]) -> Value:
    """A copy of ``value`` with none to a few faults. ``others`` gives values to take parts from."""
    held = [copy.deepcopy(value)]
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        where, at = rng.choice(list(_places(held)))
        rng.choice(FAULTS)(rng, where, at, others)
    return held[0]


def _places(value: Value) -> Iterator[tuple[Value, Value]]:
    """Every place in it: the list or object that holds it, and where in that."""
    if isinstance(value, Pairs):
        return
    inside = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for at, part in list(inside):
        yield value, at
        yield from _places(part)


def _replace(rng: Random, where: Value, at: Value, others: Callable[[], Value]) -> None:
    where[at] = odd(rng)


def _retype(rng: Random, where: Value, at: Value, others: Callable[[], Value]) -> None:
    """The same as another type."""
    found = where[at]
    match found:
        case Pairs() | Raw():
            pass
        case str():
            where[at] = rng.choice(
                ([found], {"text": found}, [{"type": "text", "text": found}], len(found), {found: found})
            )
        case bool() | None:
            where[at] = rng.choice((0, "true", [found], {}))
        case int() | float():
            where[at] = rng.choice(("7", [found], -found, 0.5, bool(found), {"value": found}))
        case list():
            where[at] = rng.choice(
                (found[0] if found else None, {str(n): v for n, v in enumerate(found)}, len(found), [found])
            )
        case dict():
            where[at] = rng.choice((list(found.values()), list(found), json.dumps(found, default=str), [found]))


def _drop(rng: Random, where: Value, at: Value, others: Callable[[], Value]) -> None:
    if isinstance(where, dict) or len(where) > 1:
        del where[at]


def _repeat(rng: Random, where: Value, at: Value, others: Callable[[], Value]) -> None:
    """An entry of a list many times; a key twice, with two values."""
    if isinstance(where, list):
        times = min(rng.choice((1, 2, 50, 500)), 1 + MOST_BYTES // (1 + len(written(where[at]))))
        where[at:at] = [copy.deepcopy(where[at]) for _ in range(times)]  # one and the same would grow in all places
        return
    found = where[at]
    if isinstance(found, dict) and found:
        key = rng.choice(list(found))
        where[at] = Pairs([*found.items(), (key, rng.choice((found[key], odd(rng))))])


def _rename(rng: Random, where: Value, at: Value, others: Callable[[], Value]) -> None:
    if isinstance(where, dict):
        where[rng.choice((str(at).upper(), f"{at} ", f"_{at}", rng.choice(WORDS)))] = where.pop(at)


def _add(rng: Random, where: Value, at: Value, others: Callable[[], Value]) -> None:
    if isinstance(where, dict):
        where[rng.choice((*KNOWN, *WORDS))] = odd(rng)
    else:
        where.insert(rng.randrange(len(where) + 1), odd(rng))


def _graft(rng: Random, where: Value, at: Value, others: Callable[[], Value]) -> None:
    """A part of something else in this place."""
    places = list(_places([others()]))
    source, place = rng.choice(places)
    where[at] = copy.deepcopy(source[place])


FAULTS = (_replace, _replace, _retype, _retype, _drop, _repeat, _rename, _add, _graft)
KNOWN = (
    "stream", "n", "tools", "tool_choice", "tool_calls", "tool_call_id", "functions", "function_call", "logprobs",
    "top_logprobs",
    "stop", "user", "metadata", "store", "response_format", "max_tokens", "max_completion_tokens", "stream_options",
    "reasoning_effort", "reasoning_content", "content", "role", "name", "type", "id", "index", "input", "prompt",
    "api_base",
    "base_url", "headers", "extra_headers", "mock_response", "fallbacks", "model_list", "custom_llm_provider", "model",
    "usage", "error", "choices", "delta", "message", "finish_reason", "cache_control", "thinking", "prompt_cache_key",
    "priority", "seed", "temperature", "refusal", "annotations", "audio", "system", "created", "object",
)  # fmt: skip
