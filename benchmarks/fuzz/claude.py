"""What Anthropic's Messages API answers, whole and as named events."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from benchmarks.fuzz.mutation import Value, mutated, odd, written
from benchmarks.scripted import TEXT, Row, tokens

USAGE = {"input_tokens": 20, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 9}
ERRORS = ("overloaded_error", "rate_limit_error", "api_error", "invalid_request_error", "billing_error", "x")
STOPS = (
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
)


def message(rng: Random) -> Row:
    return _head(content=_blocks(rng), stop_reason=rng.choice(STOPS))


def told(rng: Random) -> Row:
    return {"type": "error", "error": {"type": rng.choice(ERRORS), "message": "told"}, "request_id": "req_1"}


def events(rng: Random, *, wrong: bool, framed: Callable[[bytes], bytes]) -> bytes:
    """A streamed message; ``framed`` makes an event of each one's data."""
    found = _events(rng)
    for _ in range(rng.choice((0, 1, 1, 2, 4)) if wrong else 0):
        at = rng.randrange(len(found))
        found = rng.choice(FAULTS)(rng, found, at)
    return b"".join(_named(event) + framed(written(event)) for event in found)


def _named(event: Value) -> bytes:
    kind = event.get("type") if isinstance(event, dict) else None
    return b"event: %b\n" % kind.encode("utf-8", "replace") if isinstance(kind, str) and kind.isidentifier() else b""


def _head(**more: Value) -> Row:
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": USAGE}
    return base | {"stop_reason": None, "stop_sequence": None} | more


def _blocks(rng: Random) -> list[Row]:
    blocks: list[Row] = [{"type": "text", "text": TEXT}]
    if rng.random() < 0.3:
        blocks.insert(0, {"type": "thinking", "thinking": "hm", "signature": "sig"})
    if rng.random() < 0.1:
        blocks.insert(0, {"type": "redacted_thinking", "data": "x"})
    if rng.random() < 0.3:
        blocks.append({"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"a": 1}})
    if rng.random() < 0.1:
        blocks.append({"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}})
    return blocks


EMPTY = ("text", "thinking", "signature", "input")
"""Of a block: what deltas bring."""
DELTAS: dict[str, Callable[[Row], list[Row]]] = {
    "text": lambda block: [{"type": "text_delta", "text": word} for word in tokens(block["text"])],
    "thinking": lambda block: [
        {"type": "thinking_delta", "thinking": block["thinking"]},
        {"type": "signature_delta", "signature": block["signature"]},
    ],
    "tool_use": lambda block: [{"type": "input_json_delta", "partial_json": part} for part in ("", '{"a"', ": 1}")],
}


def _events(rng: Random) -> list[Value]:
    found: list[Value] = [{"type": "message_start", "message": _head()}, {"type": "ping"}]
    for index, block in enumerate(_blocks(rng)):
        begun = block | {name: type(block[name])() for name in EMPTY if name in block}
        found.append({"type": "content_block_start", "index": index, "content_block": begun})
        deltas = DELTAS.get(block["type"], lambda block: [])(block)
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": rng.choice(STOPS), "stop_sequence": None}
    found.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 9}})
    return [*found, {"type": "message_stop"}]


FAULTS: tuple[Callable[[Random, list[Value], int], list[Value]], ...] = (
    lambda rng, found, at: [*found[:at], told(rng), *found[at:]],
    lambda rng, found, at: [*found[:at], found[rng.randrange(len(found))], *found[at:]],
    lambda rng, found, at: found[:at] + found[at + 1 :] or found,
    lambda rng, found, at: found[:at] or found,
    lambda rng, found, at: [*found[:at], odd(rng), *found[at + 1 :]],
    lambda rng, found, at: [*found[:at], mutated(rng, found[at], lambda: message(rng)), *found[at + 1 :]],
    lambda rng, found, at: [*found[:at], mutated(rng, found[at], lambda: message(rng)), *found[at + 1 :]],
)
