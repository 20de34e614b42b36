"""OpenTelemetry's spans and log records of generative AI: OTLP in JSON, a span an object, or OpenInference's words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from distiller.logs.calls import Found, SkipReason, Source
from distiller.logs.chat import call_of
from distiller.logs.values import first, mapping, parsed

_INDEXED = re.compile(
    r"(?:gen_ai\.|llm\.)?(prompt|completion|input_messages|output_messages)\.(\d+)\.(?:message\.)?(.+)"
)
_ROLE_EVENTS = {
    "gen_ai.system.message": "system", "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant", "gen_ai.tool.message": "tool",
}  # fmt: skip
_OTHERS = ("embeddings", "execute_tool", "create_agent", "invoke_agent", "retrieval")
_CHAT_KINDS = ("LLM", "")
_OUTER = (
    "resourceSpans", "resource_spans", "resourceLogs", "resource_logs", "scopeSpans", "scope_spans", "scopeLogs",
    "scope_logs", "spans", "logRecords", "log_records",
)  # fmt: skip


def looks_like(line: Mapping[str, Any]) -> bool:
    if line.keys() & {"resourceSpans", "resource_spans", "resourceLogs", "resource_logs", "scopeSpans"}:
        return True
    attributes = line.get("attributes")
    return (
        isinstance(attributes, list | dict)
        and bool(
            line.keys()
            & {"spanId", "span_id", "context", "traceId", "trace_id", "startTimeUnixNano", "start_time", "events"}
        )
    ) or any(str(name).startswith("gen_ai.") for name in line)


def read(line: Mapping[str, Any]) -> Iterator[Found]:
    """The calls among the line's spans; what is no call of a model is told as such."""
    for span in _spans(line):
        yield _call(span)


def _spans(line: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    inner = [one for name in _OUTER if isinstance(line.get(name), list) for one in line[name] if isinstance(one, dict)]
    if inner:
        for one in inner:
            yield from _spans(one)
    elif line.keys() & {"attributes", "spanId", "span_id"} or any(str(n).startswith("gen_ai.") for n in line):
        yield line


def _call(span: Mapping[str, Any]) -> Found:
    facts = _attributes(span.get("attributes")) | {n: v for n, v in span.items() if str(n).startswith("gen_ai.")}
    operation = str(facts.get("gen_ai.operation.name") or "").lower()
    kind = str(facts.get("openinference.span.kind") or "").upper()
    if operation in _OTHERS or kind not in _CHAT_KINDS or not _of_a_model(facts):
        return SkipReason.NO_CALL
    asked, said = _texts(span, facts)
    if facts.get("error.type") and not said:
        return SkipReason.FAILED
    system = first(facts, ("gen_ai.system_instructions",))
    body: dict[str, Any] = {"messages": asked, **_parameters(facts)}
    if system is not None:
        body["system"] = [{"role": "system", "parts": parsed(system)}] if isinstance(parsed(system), list) else system
    context = mapping(span.get("context"))
    read = first(facts, ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"))
    wrote = first(facts, ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"))
    model = first(facts, ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name"))
    told = {
        "model": model,
        "usage": {"prompt_tokens": read, "completion_tokens": wrote},
        "id": first(facts, ("gen_ai.response.id",)) or first(span, ("spanId", "span_id")) or context.get("span_id"),
        "start_time": first(
            span, ("startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime", "timeUnixNano")
        ),
        "end_time": first(span, ("endTimeUnixNano", "end_time_unix_nano", "end_time", "endTime")),
        "conversation_id": first(facts, ("gen_ai.conversation.id", "session.id")),
        "user_id": first(facts, ("user.id", "enduser.id")),
        "task": first(facts, ("gen_ai.agent.name", "gen_ai.prompt.name")),
    }
    reasons = parsed(facts.get("gen_ai.response.finish_reasons"))
    answer = said[-1] if said else None
    if isinstance(answer, dict) and isinstance(reasons, list) and reasons:
        answer = {"finish_reason": reasons[0], **answer}
    return call_of(Source.OTEL, told, body, answer)


def _of_a_model(facts: Mapping[str, Any]) -> bool:
    return any(str(name).startswith(("gen_ai.", "llm.")) for name in facts)


def _attributes(told: Any) -> dict[str, Any]:
    """As one object, however they are written."""
    if isinstance(told, dict):
        return _flat(told)
    found = (one for one in told if isinstance(one, dict) and "key" in one) if isinstance(told, list) else ()
    return {str(one["key"]): _value(one.get("value")) for one in found}


def _flat(told: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """``{"gen_ai": {"usage": ...}}`` as ``{"gen_ai.usage...": ...}``; what is under a message stays together."""
    found: dict[str, Any] = {}
    for name, value in told.items():
        whole = f"{before}{name}"
        if isinstance(value, dict) and whole.split(".", maxsplit=1)[0] in ("gen_ai", "llm") and whole.count(".") < 2:
            found |= _flat(value, f"{whole}.")
        else:
            found[whole] = value
    return found


def _value(told: Any) -> Any:
    """OTLP's typed value as a plain one."""
    if not isinstance(told, dict):
        return told
    if "arrayValue" in told:
        return [_value(one) for one in mapping(told["arrayValue"]).get("values") or []]
    if "kvlistValue" in told:
        return _attributes(mapping(told["kvlistValue"]).get("values"))
    return next(iter(told.values()), None)


def _texts(span: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """What was asked and what was said: by the newest convention, by numbered attributes, or by events."""
    asked = parsed(first(facts, ("gen_ai.input.messages", "gen_ai.prompt", "input.value")))
    said = parsed(first(facts, ("gen_ai.output.messages", "gen_ai.completion", "output.value")))
    numbered = _numbered(facts)
    asked = numbered["asked"] or asked
    said = numbered["said"] or said
    events = span.get("events")
    for event in events if isinstance(events, list) else ():
        more_asked, more_said = _event(event) if isinstance(event, dict) else (None, None)
        asked = asked if more_asked is None else [*(asked if isinstance(asked, list) else []), *more_asked]
        said = said if more_said is None else more_said
    if isinstance(asked, dict) and "messages" in asked:
        asked = asked["messages"]
    return _listed(asked), _listed(said)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _event(event: Mapping[str, Any]) -> tuple[list[Any] | None, list[Any] | None]:
    facts, name = _attributes(event.get("attributes")), str(event.get("name") or event.get("eventName") or "")
    body = parsed(_value(event.get("body"))) or facts
    if name in _ROLE_EVENTS and isinstance(body, dict):
        return [{"role": _ROLE_EVENTS[name], **body}], None
    if name == "gen_ai.choice" and isinstance(body, dict):
        message = parsed(body.get("message")) or body
        return None, [message]
    asked = parsed(first(facts, ("gen_ai.input.messages", "gen_ai.prompt")))
    said = parsed(first(facts, ("gen_ai.output.messages", "gen_ai.completion")))
    return (None if asked is None else _listed(asked)), (None if said is None else _listed(said))


def _numbered(facts: Mapping[str, Any]) -> dict[str, list[Any]]:
    """``gen_ai.prompt.0.role`` and the like as messages."""
    found: dict[str, dict[int, dict[str, Any]]] = {"asked": {}, "said": {}}
    for name, value in facts.items():
        if (part := _INDEXED.fullmatch(str(name))) is not None:
            side = "asked" if part[1] in ("prompt", "input_messages") else "said"
            _put(found[side].setdefault(int(part[2]), {}), part[3], value)
    return {side: [_with_calls(of[n]) for n in sorted(of)] for side, of in found.items()}


def _put(message: dict[str, Any], path: str, value: Any) -> None:
    calls = re.fullmatch(r"tool_calls\.(\d+)\.(?:tool_call\.)?(?:function\.)?(name|arguments|id)", path)
    if calls is None:
        message[path] = value
    else:
        message.setdefault("_calls", {}).setdefault(int(calls[1]), {})[calls[2]] = value


def _with_calls(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.pop("_calls", {})
    if calls:
        message["tool_calls"] = [
            {"id": str(c.get("id", "")), "type": "function",
             "function": {"name": str(c.get("name", "")), "arguments": str(c.get("arguments", "{}"))}}
            for _, c in sorted(calls.items())
        ]  # fmt: skip
    return message


def _parameters(facts: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: facts.get(f"gen_ai.request.{name}") for name in ("temperature", "top_p", "max_tokens", "seed")}
    tools = parsed(facts.get("gen_ai.tool.definitions"))
    return {**{n: v for n, v in told.items() if v is not None}, **({"tools": tools} if isinstance(tools, list) else {})}
