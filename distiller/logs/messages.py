"""Messages in the words of each API and tracer, as chat-completions has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from distiller.logs.values import first, mapping, parsed

_ROLES = {"human": "user", "ai": "assistant", "model": "assistant", "bot": "assistant"}
_KNOWN = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_BESIDE = ("tool_calls", "tool_call_id", "name", "function_call", "refusal")
_TEXTS = frozenset({"text", "input_text", "output_text"})


def messages_of(told: Any) -> list[dict[str, Any]]:
    """The messages of a request, however they are told: a list, an object that holds one, a text (a user's). Empty
    where there are none."""
    value = parsed(told)
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value.strip() else []
    if isinstance(value, dict):
        if "role" not in value and "parts" not in value:
            return messages_of(first(value, ("messages", "input", "prompt", "contents")))
        value = [value]
    if not isinstance(value, list):
        return []
    if value and all(isinstance(one, str) for one in value):
        value = ["\n".join(value)]
    while len(value) == 1 and isinstance(value[0], list):  # LangChain logs a batch of one
        value = value[0]
    return [message for one in value for message in _turns(one)]


def _turns(one: Any) -> Iterator[dict[str, Any]]:
    """One message; of Anthropic's those that it is in chat's form, where tools' results stand alone."""
    if isinstance(one, str):
        yield {"role": "user", "content": one}
        return
    if not isinstance(one, dict):
        return
    one = mapping(one.get("kwargs")) or mapping(one.get("message")) or one
    if (item := _responses_item(one)) is not None:
        yield item
        return
    role = str(one.get("role") or one.get("type") or "user").lower()
    role = _ROLES.get(role, role)
    content = parsed_parts(one["parts"]) if isinstance(one.get("parts"), list) else one.get("content")
    if isinstance(content, dict):
        content = [content]
    said: dict[str, Any] = {"role": role if role in _KNOWN else "user"}
    said |= {name: one[name] for name in _BESIDE if one.get(name)}
    if isinstance(content, list):
        parts, calls, results = _parts(content)
        yield from results
        if calls:
            said["tool_calls"] = [*said.get("tool_calls", []), *calls]
        if results and not parts and not calls:
            return
        content = parts
    said["content"] = content if isinstance(content, str | list) else None
    yield said


def _responses_item(one: Mapping[str, Any]) -> dict[str, Any] | None:
    """A tool's call or result as an item of OpenAI's Responses."""
    if one.get("type") == "function_call":
        call = _call(one.get("call_id"), one.get("name"), one.get("arguments"))
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if one.get("type") == "function_call_output":
        return {"role": "tool", "tool_call_id": str(one.get("call_id")), "content": _as_text(one.get("output"))}
    return None


def parsed_parts(parts: list[Any]) -> list[Any]:
    """Parts of OpenTelemetry's or Gemini's messages in Anthropic's words, which ``_parts`` reads."""
    found: list[Any] = []
    for part in parts:
        if not isinstance(part, dict):
            found.append(part)
        elif part.get("type") == "tool_call":
            found.append({**part, "type": "tool_use", "input": part.get("arguments")})
        elif part.get("type") == "tool_call_response":
            content = first(part, ("response", "result", "content"))
            found.append({"type": "tool_result", "tool_use_id": part.get("id"), "content": content})
        elif isinstance(content := first(part, ("text", "content")), str) and part.get("type") in (None, "text"):
            found.append({"type": "text", "text": content})
        else:
            found.append(part)
    return found


def _parts(content: list[Any]) -> tuple[str | list[Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """(text alone, or parts; tools that were called; results of tools)."""
    parts: list[Any] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for one in content:
        part = {"type": "text", "text": one} if isinstance(one, str) else one
        if not isinstance(part, dict):
            continue
        kind = part.get("type") if isinstance(part.get("type"), str) else None
        if kind == "tool_use":
            calls.append(_call(part.get("id"), part.get("name"), part.get("input")))
        elif kind == "tool_result":
            said = _as_text(part.get("content"))
            results.append({"role": "tool", "tool_call_id": str(part.get("tool_use_id")), "content": said})
        elif kind in _TEXTS or (kind is None and isinstance(part.get("text"), str)):
            parts.append({"type": "text", "text": part.get("text")})
        elif kind in ("input_image", "image"):
            parts.append({"type": "image_url", "image_url": {"url": _image(part)}})
        elif kind not in ("thinking", "redacted_thinking", "reasoning"):
            parts.append(part)
    if all(p.get("type") == "text" and isinstance(p.get("text"), str) for p in parts):
        return "\n".join(p["text"] for p in parts), calls, results
    return parts, calls, results


def _image(part: Mapping[str, Any]) -> str:
    source = mapping(part.get("source"))
    if data := source.get("data"):
        return f"data:{source.get('media_type', 'image/png')};base64,{data}"
    told = first(part, ("image_url",)) or source.get("url") or ""
    return str(mapping(told).get("url") or told)


def _call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    said = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}, default=str).decode()
    return {"id": str(call_id or ""), "type": "function", "function": {"name": str(name or ""), "arguments": said}}


def _as_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(p.get("text", "") for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return "" if content is None else orjson.dumps(content, default=str).decode()


def says_anything(message: Mapping[str, Any]) -> bool:
    """Whether a message has any text, part or call in it."""
    content = message.get("content")
    said = content.strip() if isinstance(content, str) else content
    return bool(said or message.get("tool_calls") or message.get("function_call") or message.get("refusal"))
