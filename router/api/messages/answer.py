"""A chat answer as a Message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from router.contracts.records import Usage
from router.scoring.text.features import extract
from router.wire.assembly import assembled
from router.wire.estimates import estimated_usage, said_in, usage_or
from router.wire.usage import usage_in

INVALID_JSON = "INVALID_JSON"
"""The key under which a tool's arguments go that are no JSON object, as Anthropic advises for streamed ones."""

_REASONS = {"length": "max_tokens", "content_filter": "refusal", "tool_calls": "tool_use", "function_call": "tool_use"}


@dataclass(frozen=True, slots=True)
class MessageContext:
    """What an answer needs to know of its request. ``chat`` is the request as the cascade got it; ``thinking``:
    the client asked to see it."""

    request_id: str
    chat: Mapping[str, Any]
    thinking: bool = False

    @property
    def message_id(self) -> str:
        return f"msg_{self.request_id.removeprefix('req_')}"


def message_of(answer: Mapping[str, Any], question: MessageContext) -> dict[str, Any]:
    """The Message of a whole chat completion, its first choice."""
    choice = answer["choices"][0]
    said = assembled(choice).message
    content = _content(said, question)
    refused, calls = bool(said.get("refusal")), any(b["type"] == "tool_use" for b in content)
    usage = usage_or(usage_in(answer), lambda: estimated(question, said))
    return {
        "id": question.message_id,
        "type": "message",
        "role": "assistant",
        "model": model if isinstance(model := answer.get("model"), str) and model else question.chat["model"],
        "content": content,
        **stop_of(choice, question, calls=calls, refused=refused),
        "usage": usage_body(usage),
    }


def stop_of(
    choice: Mapping[str, Any], question: MessageContext, *, calls: bool, refused: bool = False
) -> dict[str, Any]:
    """Why the answer ended. Chat answers do not tell a stop sequence from an end; vLLM's and SGLang's do, in a
    field of their own (``stop_reason``, ``matched_stop``)."""
    finish = choice.get("finish_reason")
    if refused:
        return {"stop_reason": "refusal", "stop_sequence": None}
    if calls and finish in (None, "stop"):
        return {"stop_reason": "tool_use", "stop_sequence": None}
    stops, met = question.chat.get("stop") or (), choice.get("stop_reason") or choice.get("matched_stop")
    if finish == "stop" and isinstance(met, str) and met in stops:
        return {"stop_reason": "stop_sequence", "stop_sequence": met}
    return {"stop_reason": _REASONS.get(str(finish), "end_turn"), "stop_sequence": None}


def usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts in Anthropic's form: what the cache served or took up is not among ``input_tokens``."""
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_written_tokens, usage.input_tokens - cached)
    return {
        "input_tokens": usage.input_tokens - cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output_tokens,
    }


def estimated(question: MessageContext, said: Mapping[str, Any]) -> Usage:
    """Token counts where the backend gave none, as they are recorded."""
    return estimated_usage(extract(question.chat).input_tokens, [said_in(said)])


def signed_in(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Claude's own thinking blocks (or pieces of them, in a stream), as litellm gives them beside the reasoning."""
    blocks = said.get("thinking_blocks")
    found = [b for b in blocks if isinstance(b, dict)] if isinstance(blocks, list) else []
    return [b for b in found if b.get("signature") or b.get("type") == "redacted_thinking"]


def call_id(given: Any, question: MessageContext, at: int) -> str:
    """A call's own id, else one made for it: results name the call that they answer by it."""
    if isinstance(given, str) and given:
        return given
    return f"toolu_{question.request_id.removeprefix('req_')}_{at}"


def _content(said: Mapping[str, Any], question: MessageContext) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if question.thinking:
        thought, found = said.get("reasoning_content"), signed_in(said)
        if thought and not found:
            found = [{"type": "thinking", "thinking": thought, "signature": ""}]
    if text := (said["content"] or "") + said.get("refusal", ""):
        found.append({"type": "text", "text": text})
    for at, call in enumerate(said.get("tool_calls", ())):
        if function := call.get("function"):
            block = {"type": "tool_use", "id": call_id(call["id"], question, at), "name": function["name"]}
            found.append({**block, "input": _arguments(function["arguments"])})
    return found


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
        orjson.dumps(found)
    except (orjson.JSONDecodeError, TypeError):  # none, or one that nests too deeply to be written
        found = None
    return found if isinstance(found, dict) else {INVALID_JSON: text}
