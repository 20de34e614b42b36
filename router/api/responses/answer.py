"""A chat answer as a response object."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from router.api.responses.items import Item
from router.api.responses.output import Output
from router.api.responses.request import echo, wants_logprobs
from router.api.responses.store import Terms
from router.wire.chat import Headers
from router.wire.usage import read_usage, told_in

Response = dict[str, Any]

MOST_TOLD = 16
"""So many of what was dropped are named in a header."""

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer ended early: by chat's finish reasons, in the words used here."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One request, read. ``input`` are its own items, ``new_id`` names those to come; ``terms``: under what the
    response will be kept, None where it will not; ``dropped``: what of it no model was shown; ``size``: its bytes."""

    id: str
    body: Mapping[str, Any]
    input: list[Item]
    new_id: Callable[[str], str]
    terms: Terms | None = None
    dropped: tuple[str, ...] = ()
    size: int = 0
    created_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def headers(self) -> Headers:
        """What the client should know of its request."""
        return [(b"x-locum-dropped", ", ".join(self.dropped[:MOST_TOLD]).encode())] if self.dropped else []

    def output(self) -> Output:
        return Output(self.new_id, wants_logprobs(self.body))

    def response(self, status: str, model: str, **more: Any) -> Response:
        """The response object, as far as it goes in this status; ``more`` are fields that differ."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "store": self.terms is not None,
            "usage": None,
            **echo(self.body),
            **more,
        }

    def ended(self, finish_reason: str | None, model: str, items: list[Item], **more: Any) -> Response:
        """The response object of an answer that has its end."""
        more = {k: v for k, v in more.items() if v is not None} | {"output": items}
        if (why := INCOMPLETE.get(finish_reason or "")) is not None:
            return self.response("incomplete", model, incomplete_details={"reason": why}, **more)
        return self.response("completed", model, **more)


def item_status(finish_reason: str | None) -> str:
    """What became of the last item of an answer that ended so."""
    return "incomplete" if finish_reason in INCOMPLETE else "completed"


def response_of(turn: Turn, chat: Mapping[str, Any]) -> Response:
    """The response object for a whole chat answer."""
    output = turn.output()
    output.add(chat["choices"][0])
    finish = output.assembly.finish_reason
    output.close(item_status(finish))
    model = chat["model"] if isinstance(chat.get("model"), str) and chat["model"] else turn.body["model"]
    usage = usage_of(told_in(chat))
    return turn.ended(finish, model, output.items, usage=usage, service_tier=chat.get("service_tier"))


def usage_of(chat: Any) -> dict[str, Any] | None:
    """Chat's token counts in the words used here; None where there are none."""
    told = read_usage(chat) if isinstance(chat, dict) else None
    if told is None or (told.lacks_input and told.lacks_output):
        return None
    used = told.usage
    cached = min(used.cached_input_tokens, used.input_tokens)
    return {
        "input_tokens": used.input_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": used.cache_written_tokens},
        "output_tokens": used.output_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": used.input_tokens + used.output_tokens,
    }
