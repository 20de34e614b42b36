"""Whole answers as streams and streams as whole answers, for backends that give one where the other was asked for."""

from __future__ import annotations

import re
import time
from typing import Any

from router.backends.base import Backend
from router.backends.faults import bound
from router.backends.inband_errors import error_in
from router.errors import UpstreamError
from router.wire.assembly import Assembly
from router.wire.calls import number
from router.wire.json_text import BOM, dumps, loads
from router.wire.sse import chunks, encode, ends
from router.wire.usage import told_in

_IS_STREAM = re.compile(rb"\s*(?:data|event|id|retry)?:")


def is_stream(content: bytes) -> bool:
    """Whether a whole answer's bytes are server-sent events."""
    return content[:1] != b"{" and _IS_STREAM.match(content.removeprefix(BOM)) is not None


def streamed(backend: Backend, content: bytes) -> bytes:
    """The events of a whole answer, or one that tells the error which it is.

    Raises:
        UpstreamError: it is neither, or more than is ever said.
    """
    bound(backend, content)
    found = None
    try:
        found, _ = loads(content)
        if error_in(found) is not None:
            return encode(found)
        return _events(found)
    except (UpstreamError, ValueError, TypeError, LookupError, AttributeError) as e:
        error = UpstreamError(f"{backend.label} answered something that is no chat completion")
        error.usage = told_in(found)
        raise error from e


def _events(answer: dict[str, Any]) -> bytes:
    head = {k: v for k, v in answer.items() if k not in ("choices", "usage")} | {"object": "chat.completion.chunk"}
    events = []
    for choice in answer["choices"]:
        delta = dict(choice["message"])
        if isinstance(calls := delta.get("tool_calls"), list):
            delta["tool_calls"] = [{**call, "index": n} for n, call in enumerate(calls)]
        said = {k: v for k, v in choice.items() if k != "message"} | {"delta": delta, "finish_reason": None}
        last = {k: v for k, v in choice.items() if k not in ("message", "logprobs")} | {"delta": {}}
        events += [{"choices": [said]}, {"choices": [last]}]
    if answer.get("usage"):
        events.append({"choices": [], "usage": answer["usage"]})
    return b"".join([encode({**head, **event}) for event in events]) + b"data: [DONE]\n\n"


def whole(backend: Backend, events: bytes) -> bytes:
    """The whole answer that a stream adds up to, or the chunk that tells an error.

    Raises:
        UpstreamError: it was cut short, or holds what cannot be read.
    """
    found, readable = chunks(events + b"\n\n")
    if (error := next((chunk for chunk in found if error_in(chunk) is not None), None)) is not None:
        return dumps(error)
    choices = {
        number(c.get("index")) or 0 for chunk in found for c in chunk.get("choices") or () if isinstance(c, dict)
    }
    assemblies = [Assembly(entries=[], choice=index) for index in sorted(choices)]
    for chunk in found:
        for assembly in assemblies:
            assembly.add(chunk)
    finished = bool(assemblies) and all(a.finish_reason for a in assemblies)
    readable = readable and all(a.whole for a in assemblies)
    if not readable or not assemblies or not (finished or ends(events.rstrip())):
        raise UpstreamError(f"{backend.label} broke off its answer, a stream where a whole one was asked for")
    told = [
        {"index": a.choice, "message": a.message, "finish_reason": a.finish_reason}
        | ({"logprobs": {"content": a.entries}} if a.entries else {})
        for a in assemblies
    ]
    first = assemblies[0]
    usage = {"usage": first.usage_told} if first.usage_told else {}
    tier = {"service_tier": first.service_tier} if first.service_tier else {}
    head = {"id": found[0].get("id"), "created": found[0].get("created") or int(time.time()), "model": first.model}
    return dumps({**head, "object": "chat.completion", "choices": told, **usage, **tier})
