"""What a model said, in the words of each API and tracer, as the assistant's message of chat-completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from distiller.logs.messages import messages_of, says_anything
from distiller.logs.values import first, mapping, parsed
from router.contracts.records import Usage
from router.wire.finish import finish_of
from router.wire.usage import usage_in

_INNER = ("message", "output", "response", "completion", "answer", "text", "result")


class LoggedAnswer(NamedTuple):
    """The first of the answers that were given, whole; ``message`` None where there is none."""

    message: dict[str, Any] | None
    finish_reason: str = "stop"
    usage: Usage | None = None
    model: str = ""


def said_in(told: Any) -> LoggedAnswer:
    """Reads a chat completion, a message of Anthropic's, a response of OpenAI's Responses, a list of choices or of
    messages, one message, or a text."""
    value = parsed(told)
    if isinstance(value, dict):
        return _in_object(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        one = value[0]
        if "message" in one or "finish_reason" in one:
            return _said(first(one, ("message",)) or one, one.get("finish_reason"))
        return _said(value[-1], None)
    return _said(value, None)


def _in_object(value: Mapping[str, Any]) -> LoggedAnswer:
    usage = usage_in(value)
    counted = usage.usage if usage is not None and usage.whole else None
    model = value.get("model") if isinstance(value.get("model"), str) else ""
    choices = value.get("choices")
    if isinstance(choices, list):
        choice = mapping(choices[0]) if choices else {}
        found = _said(first(choice, ("message", "text")), choice.get("finish_reason"))
    elif isinstance(value.get("output"), list):  # OpenAI's Responses
        found = _said_items(value["output"], value.get("status"))
    elif "role" in value or "content" in value or "parts" in value or "tool_calls" in value:
        found = _said(value, first(value, ("finish_reason", "stop_reason")))
    elif (
        inner := first(value, ("message", "output", "response", "completion", "answer", "text", "result"))
    ) is not None:
        return said_in(inner)
    else:  # some application's own object, such as what it parsed the answer to
        return LoggedAnswer(None, usage=counted, model=str(model or ""))
    return found._replace(usage=counted, model=str(model or ""))


def _said_items(items: list[Any], status: Any) -> LoggedAnswer:
    messages = messages_of([i for i in items if mapping(i).get("type") != "reasoning"])
    texts = [m["content"] for m in messages if isinstance(m.get("content"), str)]
    calls = [call for m in messages if isinstance(m.get("tool_calls"), list) for call in m["tool_calls"]]
    return _said({"role": "assistant", "content": "\n".join(texts) or None, "tool_calls": calls}, status)


def _said(told: Any, finish: Any) -> LoggedAnswer:
    found = messages_of(told)
    if not found:
        return LoggedAnswer(None)
    message = {name: value for name, value in found[-1].items() if value not in (None, [])}
    message = {**message, "role": "assistant", "content": message.get("content")}
    if not says_anything(message):
        return LoggedAnswer(None)
    usual = "tool_calls" if message.get("tool_calls") else "stop"
    return LoggedAnswer(message, finish_of(finish) or usual)
