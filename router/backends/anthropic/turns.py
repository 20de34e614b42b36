"""Chat messages as Anthropic's turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from router.backends.anthropic.answer import is_signed, thought_of
from router.backends.anthropic.passage import plain_id
from router.backends.faults import unable

Block = dict[str, Any]

SAYING = "system", "developer"


def turns_of(body: Mapping[str, Any]) -> tuple[list[Block], list[dict[str, Any]]]:
    """(the system prompt's blocks, the turns). Neighbours of one role are one turn, since results of tools must stand
    together. Raises UpstreamUnable."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for n, message in enumerate(body["messages"]):
        role, where = message.get("role"), f"messages[{n}]"
        if role in SAYING:
            system += _blocks(message, where)
            continue
        blocks = _by_role(role, message, where)
        role = "assistant" if role == "assistant" else "user"
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise unable("'messages' must hold something that a user said", "messages")
    if turns[-1]["role"] == "assistant":
        _trim(turns[-1]["content"])
    return system, turns


def _by_role(role: Any, message: Mapping[str, Any], where: str) -> list[Block]:
    match role:
        case "user":
            return _blocks(message, where)
        case "assistant":
            return [*_thoughts(message), *_blocks(message, where), *_calls(message, where)]
        case "tool":
            call, content = message.get("tool_call_id"), _blocks(message, where)
            found: Block = {"type": "tool_result", "tool_use_id": plain_id(str(call))}
            if content and "cache_control" in content[-1]:
                found["cache_control"] = content[-1].pop("cache_control")
            return [found | ({"content": content} if content else {})]
        case _:
            raise unable(f"'{where}.role' is {role!r}, which cannot be said to Claude", f"{where}.role")


def _blocks(message: Mapping[str, Any], where: str) -> list[Block]:
    """A message's content; a mark for the prompt cache on the whole of it goes on its last block."""
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    found = [_part(p, f"{where}.content[{n}]") for n, p in enumerate(parts if isinstance(parts, list) else [])]
    blocks = [block for block in found if block is not None]
    if blocks and isinstance(mark := message.get("cache_control"), dict):
        blocks[-1]["cache_control"] = mark
    return blocks


def _part(part: Any, where: str) -> Block | None:
    """None for what is empty, which Claude refuses, and for thoughts, which have a place of their own."""
    kind = part.get("type") if isinstance(part, dict) else None
    found: Block | None
    match kind:
        case "text" | "refusal":
            text = part.get(kind)
            found = {"type": "text", "text": text} if isinstance(text, str) and text.strip() else None
        case "image_url":
            image = part.get("image_url")
            found = {"type": "image", "source": _source(image.get("url") if isinstance(image, dict) else image, where)}
        case "file":
            found = _file(part.get("file"), where)
        case "thinking" | "redacted_thinking" | "reasoning":
            found = None
        case _:
            raise unable(f"'{where}' is of the type {kind!r}, which cannot be shown to Claude", where)
    if found and isinstance(mark := part.get("cache_control"), dict):
        found["cache_control"] = mark
    return found


def _source(url: Any, where: str) -> Block:
    if not isinstance(url, str):
        raise unable(f"'{where}' needs a URL", where)
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}  # Anthropic fetches it, nobody here
    head, comma, data = url.partition(",")
    kind = head.removeprefix("data:").removesuffix(";base64")
    if not url.startswith("data:") or not comma or not head.endswith(";base64"):
        raise unable(f"'{where}' must be given as an https: URL, or as a data: URL in base64", where)
    return {"type": "base64", "media_type": kind.partition(";")[0], "data": data}


def _file(file: Any, where: str) -> Block:
    data = file.get("file_data") if isinstance(file, dict) else None
    if not isinstance(data, str):
        raise unable(f"'{where}' must be given by its 'file_data'", where)
    source = _source(data if data.startswith("data:") else f"data:application/pdf;base64,{data}", where)
    if source["type"] != "base64" or source["media_type"] != "application/pdf":
        raise unable(f"'{where}' must be a PDF", where)
    named = {"title": file["filename"]} if isinstance(file.get("filename"), str) else {}
    return {"type": "document", "source": source, **named}


def _thoughts(message: Mapping[str, Any]) -> list[Block]:
    """Those that Claude signed, word for word."""
    blocks = message.get("thinking_blocks")
    found = [b for b in blocks if isinstance(b, dict)] if isinstance(blocks, list) else []
    return [thought_of(b) for b in found if is_signed(b)]


def _calls(message: Mapping[str, Any], where: str) -> list[Block]:
    calls = message.get("tool_calls")
    found = []
    for n, call in enumerate(calls if isinstance(calls, list) else ()):
        kind = call.get("type", "function") if isinstance(call, dict) else None
        inner = call.get(kind) if isinstance(kind, str) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise unable(f"'{where}.tool_calls[{n}]' names no tool", f"{where}.tool_calls[{n}]")
        given = {"input": inner.get("input") or ""} if kind == "custom" else _arguments(inner.get("arguments"))
        named = {"id": plain_id(str(call.get("id"))), "name": inner["name"]}
        found.append({"type": "tool_use", **named, "input": given})
    return found


def _arguments(given: Any) -> dict[str, Any]:
    """What is no JSON object goes along as it is, under a name of its own, as Anthropic advises."""
    if isinstance(given, dict):
        return given
    text = given if isinstance(given, str) else ""
    try:
        found = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"INVALID_JSON": text}


def _trim(blocks: list[Block]) -> None:
    """A beginning that Claude is to go on with may not end in a blank."""
    if blocks and blocks[-1].get("type") == "text":
        blocks[-1]["text"] = blocks[-1]["text"].rstrip()
