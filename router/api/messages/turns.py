"""Anthropic's turns as chat messages: blocks become parts, tool calls and messages of tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from router.api.chat import SHOWN_BELOW, behind
from router.errors import BadRequest

Block = Mapping[str, Any]
Part = dict[str, Any]

BILLING = "x-anthropic-billing-header:"
"""How a note to Anthropic's servers begins that Claude Code puts in front of its system prompt. It is left out:
it can differ in every request, and would part a conversation from its prompt caches and from its own past."""


def messages_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chat messages of a request's ``system`` and ``messages``.

    Thinking of earlier turns goes along in the fields that servers and litellm give it in: signed blocks as
    ``thinking_blocks``, unsigned ones, which this surface made, as ``reasoning_content``. Who must not get
    them is ``router.backends.history``'s to say. Cache markers and citations are left out: chat has no place for them.

    Raises:
        BadRequest: something is malformed, or of a kind that chat requests cannot carry.
    """
    found = []
    system = _texts(body.get("system") or [], "system")
    if system := [part for part in system if not part["text"].startswith(BILLING)]:
        found.append({"role": "system", "content": joined(system)})
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("messages", "must be a list of at least one message")
    for n, message in enumerate(messages):
        where = f"messages.{n}"
        if not isinstance(message, dict):
            raise bad(where, "must be an object with 'role' and 'content'")
        found += _turn(message, where)
    return found


def bad(where: str, why: str) -> BadRequest:
    """The error of a part of the request; ``where`` is its path, as Anthropic writes it (``messages.0.content``)."""
    return BadRequest(f"{where}: {why}", param=where)


def joined(parts: list[Part]) -> str | list[Part]:
    """A message's content: text alone as a string, which every server's template takes."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts


def _turn(message: Block, where: str) -> list[dict[str, Any]]:
    role, content, inside = message.get("role"), message.get("content"), f"{where}.content"
    match role:
        case "user":
            return _user(content, inside)
        case "assistant":
            return [_assistant(content, inside)]
        case "system":
            return [{"role": "system", "content": joined(_texts(content, inside))}]
        case _:
            raise bad(f"{where}.role", "must be 'user', 'assistant' or 'system'")


def _blocks(content: Any, where: str) -> Iterator[tuple[str, Block]]:
    """Each block and where it stands; a string is one block of text."""
    if isinstance(content, str):
        yield where, {"type": "text", "text": content}
        return
    if not isinstance(content, list):
        raise bad(where, "must be a string or a list of content blocks")
    for n, block in enumerate(content):
        at = f"{where}.{n}"
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise bad(at, "must be a content block: an object with a 'type'")
        yield at, block


def _texts(content: Any, where: str) -> list[Part]:
    """Content that may be text only."""
    found = []
    for at, block in _blocks(content, where):
        if block["type"] != "text":
            raise bad(at, f"a block of type {block['type']!r} cannot stand here, only text")
        found.append(_text(block, at))
    return found


def _user(content: Any, where: str) -> list[dict[str, Any]]:
    """Results of tools come first, since chat wants them right behind the calls they answer; what they hold
    besides text goes in front of the user's own words, since messages of tools carry text only."""
    results, shown, own = [], [], []
    for at, block in _blocks(content, where):
        if block["type"] == "tool_result":
            result, beside = _tool_result(block, at)
            results.append(result)
            shown += beside
        else:
            own += _parts(block, at)
    parts = shown + own
    if not results and not any(p.get("text") or p["type"] != "text" for p in parts):
        raise bad(where, "must not be empty")
    return [*results, *([{"role": "user", "content": joined(parts)}] if parts else [])]


def _assistant(content: Any, where: str) -> dict[str, Any]:
    texts, calls, signed, unsigned = [], [], [], ""
    for at, block in _blocks(content, where):
        match block["type"]:
            case "text":
                texts.append(_text(block, at))
            case "tool_use":
                calls.append(_tool_call(block, at))
            case "thinking" if not block.get("signature"):
                unsigned += str(block.get("thinking") or "")
            case "thinking" | "redacted_thinking":
                signed.append({k: v for k, v in block.items() if k in ("type", "thinking", "signature", "data")})
            case other:
                raise bad(at, f"a block of type {other!r} in an assistant's turn is nothing this proxy can pass on")
    found: dict[str, Any] = {"role": "assistant", "content": joined(texts)}
    if calls:
        found |= {"content": found["content"] or None, "tool_calls": calls}
    if unsigned:
        found["reasoning_content"] = unsigned
    if signed:
        found["thinking_blocks"] = signed
    return found


def _tool_call(block: Block, at: str) -> dict[str, Any]:
    arguments = block.get("input", {})
    if not isinstance(arguments, dict):
        raise bad(f"{at}.input", "must be an object")
    try:
        written = orjson.dumps(arguments).decode()
    except orjson.JSONEncodeError as e:  # it reads deeper nesting than it writes
        raise bad(f"{at}.input", f"cannot be passed on: {e}") from e
    function = {"name": _string(block, "name", at), "arguments": written}
    return {"id": _string(block, "id", at), "type": "function", "function": function}


def _tool_result(block: Block, at: str) -> tuple[dict[str, Any], list[Part]]:
    """The message of a tool, and what stands beside it: images and files of the result. Chat has no mark
    for a failed call, so that its text says so."""
    call, content = _string(block, "tool_use_id", at), block.get("content")
    found: list[Part] = []
    for inner, piece in _blocks("" if content is None else content, f"{at}.content"):
        if piece["type"] == "tool_reference":  # every tool is declared from the start: naming it is enough
            found.append({"type": "text", "text": f"Tool found: {_string(piece, 'tool_name', inner)}"})
        else:
            found += _parts(piece, inner)
    texts = [p for p in found if p["type"] == "text"]
    beside = [p for p in found if p["type"] != "text"]
    if beside and not any(p["text"] for p in texts):
        texts = [{"type": "text", "text": SHOWN_BELOW}]
    if block.get("is_error"):
        first, *more = texts or [{"text": ""}]
        texts = [{"type": "text", "text": f"Error: {first['text']}" if first["text"] else "Error"}, *more]
    return {"role": "tool", "tool_call_id": call, "content": joined(texts)}, behind(call, beside)


def _parts(block: Block, at: str) -> list[Part]:
    """What a user, or a tool, can show: as the parts of a chat message."""
    match block["type"]:
        case "text":
            return [_text(block, at)]
        case "image":
            return [_image(block, at)]
        case "document":
            return _document(block, at)
        case "search_result":
            heading = "\n".join(str(block[k]) for k in ("title", "source") if block.get(k))
            texts = _texts(block.get("content"), f"{at}.content")
            return [{"type": "text", "text": "\n".join([heading, *(t["text"] for t in texts)])}]
        case other:
            raise bad(at, f"a block of type {other!r} is nothing this proxy can pass on to a model")


def _text(block: Block, at: str) -> Part:
    text = block.get("text")
    if not isinstance(text, str):
        raise bad(f"{at}.text", "must be a string")
    return {"type": "text", "text": text}


def _image(block: Block, at: str) -> Part:
    source = _source(block, at)
    match source.get("type"):
        case "base64":
            kind, data = _string(source, "media_type", f"{at}.source"), _string(source, "data", f"{at}.source")
            url = f"data:{kind};base64,{data}"
        case "url":
            url = _string(source, "url", f"{at}.source")
        case other:
            raise bad(f"{at}.source", f"an image by {other!r} cannot be passed on; give it by 'base64' or 'url'")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: Block, at: str) -> list[Part]:
    """A PDF as a file, text as text; its title and context stand before it."""
    source, title = _source(block, at), block.get("title")
    heading = "\n".join(t for t in (title, block.get("context")) if isinstance(t, str) and t)
    found: list[Part] = [{"type": "text", "text": heading}] if heading else []
    match source.get("type"):
        case "text":
            return [*found, {"type": "text", "text": _string(source, "data", f"{at}.source")}]
        case "content":
            for inner, piece in _blocks(source.get("content"), f"{at}.source.content"):
                if piece["type"] not in ("text", "image"):
                    raise bad(inner, "a document's own content is text and images only")
                found += _parts(piece, inner)
            return found
        case "base64" if source.get("media_type") == "application/pdf":
            data = f"data:application/pdf;base64,{_string(source, 'data', f'{at}.source')}"
            name = f"{title.removesuffix('.pdf') if isinstance(title, str) and title else 'document'}.pdf"
            return [*found, {"type": "file", "file": {"filename": name, "file_data": data}}]
        case other:
            why = f"a document by {other!r} cannot be passed on; give a PDF by 'base64', or its 'text' or 'content'"
            raise bad(f"{at}.source", why)


def _source(block: Block, at: str) -> Block:
    source = block.get("source")
    if not isinstance(source, dict):
        raise bad(f"{at}.source", "must be an object")
    return source


def _string(block: Block, key: str, at: str) -> str:
    value = block.get(key)
    if not isinstance(value, str) or not value:
        raise bad(f"{at}.{key}", "must be given, as a string")
    return value
