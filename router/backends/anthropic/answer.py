"""A Message as a chat completion."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from router.errors import UpstreamError
from router.wire.usage import count

TOOLS = "tool_use"
"""Of a block, and why a message ends that has one."""
FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "refusal": "content_filter",
}

_TEXTS = {"text": "text", "thinking": "thinking"}
_UNSAID = ("compaction", "container_upload", "redacted_thinking")
_OF_TOOLS = ("tool_use", "_tool_result")
KEPT = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
BESIDE = ("server_tool_use", "service_tier", "speed", "inference_geo", "cost")
"""What else of a usage chooses its price, or is paid for."""
COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


def truly_ended(message: Mapping[str, Any], calls: bool) -> Mapping[str, Any]:
    """What says why an answer ends, so that it says what is true: for its tools where it asks for some, and only then.
    The same object where that is so."""
    reason = message.get("stop_reason")
    if calls and reason == "end_turn":
        return {**message, "stop_reason": TOOLS}
    return {**message, "stop_reason": "end_turn"} if reason == TOOLS and not calls else message


def calls_in(message: Any) -> bool:
    """Whether a Message asks for a tool that the client runs."""
    blocks = message.get("content") if isinstance(message, dict) else None
    return any(isinstance(b, dict) and b.get("type") == TOOLS for b in blocks) if isinstance(blocks, list) else False


def chat_of(message: Any, custom: Iterable[str] = ()) -> dict[str, Any]:
    """The chat completion that says the same; ``custom``: the tools whose input is text, not JSON.

    Raises:
        UpstreamError: it is no message.
    """
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        raise UpstreamError("what came is no message")
    said = said_in([b for b in message["content"] if isinstance(b, dict)], frozenset(custom))
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **said}, **finish_of(message)}
    return {
        "id": message.get("id"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": message.get("model"),
        "choices": [choice],
        "usage": usage_of(message.get("usage")),
    }


def is_whole(message: Mapping[str, Any]) -> bool:
    """Whether a chat completion can say all of a message: nothing in it is of a form that nobody knows, and no tool is
    missing that it ends for."""
    reason, blocks = message.get("stop_reason"), message["content"]
    known = isinstance(reason, str) and reason in FINISHES and message.get("role") in (None, "assistant")
    return known and all(map(is_known, blocks)) and (reason != TOOLS or calls_in(message))


def is_known(block: Any) -> bool:
    """Whether a block, or the beginning of one, is of a form that can be read."""
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str):
        return False
    if kind in _TEXTS:
        return isinstance(block.get(_TEXTS[kind]), str)
    return kind in _UNSAID or kind.endswith(_OF_TOOLS)


def said_in(blocks: list[dict[str, Any]], custom: frozenset[str]) -> dict[str, Any]:
    """The fields of an assistant's chat message that say what the blocks do."""
    texts = [b["text"] for b in blocks if b.get("type") == "text" and isinstance(b.get("text"), str)]
    thoughts = [b["thinking"] for b in blocks if b.get("type") == "thinking" and isinstance(b.get("thinking"), str)]
    signed = [thought_of(b) for b in blocks if is_signed(b)]
    calls = [call_of(b, custom) for b in blocks if b.get("type") == "tool_use"]
    found: dict[str, Any] = {"content": "".join(texts)} if texts else {}
    found |= {"reasoning_content": "\n".join(thoughts)} if any(thoughts) else {}
    found |= {"thinking_blocks": signed} if signed else {}
    return found | ({"tool_calls": calls} if calls else {})


def is_signed(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "redacted_thinking" or (
        block.get("type") == "thinking" and bool(block.get("signature"))
    )


def thought_of(block: Mapping[str, Any]) -> dict[str, Any]:
    """What must come back of a thought, word for word."""
    return {k: v for k, v in block.items() if k in ("type", "thinking", "signature", "data")}


def call_of(block: Mapping[str, Any], custom: frozenset[str]) -> dict[str, Any]:
    given, name = block.get("input"), str(block.get("name") or "")
    if name in custom:
        return {"id": block.get("id"), "type": "custom", "custom": {"name": name, "input": input_of(given)}}
    written = orjson.dumps({} if given is None else given).decode()
    return {"id": block.get("id"), "type": "function", "function": {"name": name, "arguments": written}}


def input_of(given: Any) -> str:
    """A custom tool's text, from the object that stands for it (``request.custom_tool``)."""
    text = given.get("input") if isinstance(given, dict) else None
    return text if isinstance(text, str) else orjson.dumps(given).decode()


def finish_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """A choice's ``finish_reason``; and which stop sequence it was, in the field that vLLM has for it."""
    reason, met = found.get("stop_reason"), found.get("stop_sequence")
    told = {"finish_reason": FINISHES.get(reason, "stop") if isinstance(reason, str) else None}
    return told | ({"stop_reason": met} if isinstance(met, str) else {})


def usage_of(given: Any) -> dict[str, Any] | None:
    """Token counts in OpenAI's form: what the cache served or took up is among ``prompt_tokens``. A compaction's own
    tokens, which Anthropic tells apart, are added: they are paid for too."""
    if not isinstance(given, dict):
        return None
    apart = [i for i in _list(given.get("iterations")) if isinstance(i, dict) and i.get("type") == "compaction"]
    fresh, written, read, output = (sum(_count(part, name) for part in (given, *apart)) for name in COUNTS)
    details = given.get("output_tokens_details")
    short, hour = (sum(_count(part.get("cache_creation"), name) for part in (given, *apart)) for name in KEPT)
    written = max(written, short + hour)
    found: dict[str, Any] = {
        "prompt_tokens": fresh + written + read,
        "completion_tokens": output,
        "total_tokens": fresh + written + read + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written, "cache_write_1h_tokens": hour},
    }
    for name, of in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
        if count(given.get(name)) is None:  # it is no 0: who pays for it makes a guess
            found[of] = found["total_tokens"] = None
    if thought := _count(details, "thinking_tokens"):
        found["completion_tokens_details"] = {"reasoning_tokens": thought}
    return found | {name: told for name in BESIDE if (told := given.get(name)) is not None}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(of: Any, name: str) -> int:
    return (count(of.get(name)) or 0) if isinstance(of, dict) else 0
