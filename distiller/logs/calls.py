"""One call of a model as another system logged it, or why a line is none that can be used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

import orjson

from router.contracts.records import Rights, Usage


class Source(StrEnum):
    """Who wrote a line."""

    OPENAI = "openai"
    LITELLM = "litellm"
    LANGFUSE = "langfuse"
    OTEL = "otel"
    CSV = "csv"


class SkipReason(StrEnum):
    """Why a line, or a call in it, is not used. A closed set; the words are for people."""

    BROKEN = "no JSON: broken off or damaged"
    TOO_LONG = "longer than what one call can be"
    TOO_DEEP = "nested beyond what is read"
    UNKNOWN = "no format that is known here"
    OTHER_FORMAT = "another format than the one asked for"
    NO_CALL = "no call of a chat model (an embedding, a span, a heading)"
    NO_REQUEST = "no request: its texts were not logged"
    NO_ANSWER = "no answer"
    NO_PARTNER = "an answer whose request is not in these files"
    FAILED = "the call failed"
    DUPLICATE = "the same call again"


@dataclass(slots=True, kw_only=True)
class LoggedCall:
    """``request`` is a chat-completions body, ``message`` what the assistant said. ``at`` is unix time, None where the
    log does not tell; ``cost_usd`` what the log says that it cost. ``usage.estimated`` where the log counts no tokens.
    ``call_id`` is the log's own name for it, "" without one. ``rights`` is what the log says of them, and by which
    field (``distiller.logs.terms.told_rights``)."""

    source: Source
    request: dict[str, Any]
    message: dict[str, Any]
    finish_reason: str = "stop"
    at: float | None = None
    model: str = ""
    call_id: str = ""
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal | None = None
    seconds: float = 0.0
    user: str | None = None
    conversation: str | None = None
    task: str | None = None
    rights: tuple[Rights, str] | None = None

    @property
    def key(self) -> str:
        """The same for the same call, wherever it was logged: by its own name, its time and all that was said."""
        told = [self.call_id, self.at, self.request.get("messages"), self.message]
        return hashlib.blake2b(orjson.dumps(told, default=str), digest_size=16).hexdigest()


@dataclass(slots=True, frozen=True)
class HalfCall:
    """One side of a call whose other side stands in another line (OpenAI's and Anthropic's batches): the request, or
    what came of it; ``pair`` is what both lines name."""

    pair: str
    side: str
    line: dict[str, Any]
    source: Source = Source.OPENAI


Found = LoggedCall | HalfCall | SkipReason
