"""Server-sent events: cutting a byte stream into them, and putting a streamed chat answer together."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from router.contracts.records import Usage
from router.pricing import usage_from_openai

DONE = b"[DONE]"
_LAST = b"data: [DONE]"
_NEWLINE = rb"(?:\r\n|\n|\r(?!\n))"
_END = re.compile(_NEWLINE + _NEWLINE)
_SURE_END = re.compile(rb"(?:\r\n|\n)(?:\r\n|\n|\r(?=[^\n]))|\r(?!\n)" + _NEWLINE)
"""The same where more may come: a return that ends the bytes may be half a newline, as the one before it is whole."""
_LINE = re.compile(rb"\r\n|\n|\r")
_LONGEST_END = len(b"\r\n\r\n")


class Cutter:
    """Cuts a byte stream behind whole events, and looks at each byte once, however small the pieces."""

    __slots__ = ("_before", "_waiting", "size")

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._before = b""
        """The last bytes that wait: an event's end may be cut itself."""
        self.size = 0
        """Bytes that wait for their event's end."""

    def feed(self, piece: bytes) -> bytes:
        """The events that ended with this piece, in one run of bytes, closing blank lines included."""
        data = self._before + piece if self._before else piece
        end = data.rfind(b"\n\n") + 2
        if end == 1 or b"\r" in data:
            end = max((found.end() for found in _SURE_END.finditer(data)), default=0)
        if not self.size and end == len(piece):
            return piece
        if not end:
            self._wait(piece)
            return b""
        end -= len(self._before)
        events = b"".join([*self._waiting, piece[:end]])
        self.rest()
        self._wait(piece[end:])
        return events

    def rest(self) -> bytes:
        """What waits for its end, which no longer does."""
        rest = b"".join(self._waiting)
        self._waiting, self._before, self.size = [], b"", 0
        return rest

    def _wait(self, piece: bytes) -> None:
        if piece:
            self._waiting.append(piece)
            self._before = (self._before + piece)[1 - _LONGEST_END :]
            self.size += len(piece)


def split(events: bytes) -> list[bytes]:
    """Whole events, each with its closing blank line."""
    if b"\r" not in events:
        if events.find(b"\n") == len(events) - 2:  # a single line, as most pieces of a stream are
            return [events]
        return [event + b"\n\n" for event in events.split(b"\n\n") if event]
    found, start = [], 0
    for end in _END.finditer(events):
        found.append(events[start : end.end()])
        start = end.end()
    return found


def payload(event: bytes) -> bytes:
    """The event's data; empty for comments and keep-alives."""
    if event.find(b"\n") == len(event) - 2 and event.startswith(b"data:") and b"\r" not in event:
        return event[5:].strip()
    lines = (line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:"))
    return b"\n".join(lines)


def encode(chunk: Any) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(chunk)


def parse(event: bytes) -> dict[str, Any] | None:
    """The event's JSON object; None where it holds none (a comment, [DONE], or no JSON)."""
    if event.startswith(b"data: {"):
        try:
            found: dict[str, Any] = orjson.loads(event[6:])
            return found
        except orjson.JSONDecodeError:
            pass  # of several lines, perhaps
    data = payload(event)
    if not data or data == DONE:
        return None
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return chunk if isinstance(chunk, dict) else None


def chunks(events: bytes) -> list[dict[str, Any]]:
    """The JSON objects of whole events, in order; what holds none is passed over.

    Read in one go where every event is a single line, as chat completions' are: many small calls of
    the parser cost several times one.
    """
    lines = [event for event in events.split(b"\n\n") if event and event != _LAST]
    if all(line.startswith(b"data: {") and b"\n" not in line for line in lines) and b"\r" not in events:
        try:
            found: list[dict[str, Any]] = orjson.loads(b"[%b]" % b",".join([line[6:] for line in lines]))
            return found
        except orjson.JSONDecodeError:
            pass  # one of them is broken: tell which, one by one
    return [chunk for chunk in map(parse, split(events)) if chunk is not None]


def usage_of(answer: Any) -> Usage | None:
    """Token counts as an OpenAI ``usage`` object gives them; None where the answer (or chunk) has none."""
    found = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        return None
    return usage_from_openai(found)


def is_usage_only(chunk: dict[str, Any]) -> bool:
    """Whether this is the chunk that ``stream_options.include_usage`` adds at the end of a stream."""
    return chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict)


def entries_of(choice: Any) -> list[Any]:
    """What one choice (of an answer or of a chunk) tells of its tokens, as it came."""
    logprobs = choice.get("logprobs") if isinstance(choice, dict) else None
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return content if isinstance(content, list) else []


def logprobs_of(choice: Any) -> list[float]:
    """The emitted tokens' natural log-probabilities in one choice (of an answer or of a chunk)."""
    found: list[float] = []
    for token in entries_of(choice):
        value = token.get("logprob") if isinstance(token, dict) else None
        if isinstance(value, (int, float)):  # a tuple: a union would be built anew for each token
            found.append(float(value) if value < 0.0 else 0.0)
    return found


def tokens_of(choice: Any, count: int) -> list[str]:
    """The texts of the first ``count`` tokens of which ``logprobs_of`` tells the probabilities."""
    known = (t for t in entries_of(choice) if isinstance(t, dict))
    texts = (t.get("token") for t in known if isinstance(t.get("logprob"), (int, float)))
    return [text if isinstance(text, str) else "" for text, _ in zip(texts, range(count), strict=False)]


@dataclass(slots=True)
class Collector:
    """Puts the first choice of a streamed answer together from its chunks. ``entries``, where it is a list, gathers
    all that is told of the tokens."""

    message: dict[str, Any] = field(default_factory=lambda: {"role": "assistant", "content": None})
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    logprobs: list[float] = field(default_factory=list)
    tokens: int = 0
    entries: list[Any] | None = None

    def add(self, chunk: dict[str, Any]) -> None:
        """Takes one chunk. Malformed parts are passed over: the client judges its own answer."""
        if chunk.get("usage"):
            self.usage = usage_of(chunk) or self.usage
        if isinstance(model := chunk.get("model"), str):
            self.model = model
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        fresh = logprobs_of(choice) if choice.get("logprobs") else ()
        if fresh:
            self.logprobs += fresh
            if self.entries is not None:
                self.entries += entries_of(choice)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        if delta.get("content") or delta.get("tool_calls") or delta.get("reasoning_content"):
            self.tokens += len(fresh) or 1
        for key, value in delta.items():
            if key == "tool_calls":
                self._add_calls(value)
            elif isinstance(value, str) and key != "role":
                self.message[key] = (self.message.get(key) or "") + value
            elif isinstance(value, list) and isinstance(known := self.message.get(key), list):
                self.message[key] = known + value
            elif value is not None:
                self.message[key] = value

    def _add_calls(self, calls: Any) -> None:
        known: list[dict[str, Any]] = self.message.setdefault("tool_calls", [])
        for part in calls if isinstance(calls, list) else ():
            if not isinstance(part, dict):
                continue
            at = part.get("index", len(known))
            while isinstance(at, int) and len(known) <= at < 128:
                known.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
            if not isinstance(at, int) or not 0 <= at < len(known):
                continue
            call, function = known[at], part.get("function")
            call["id"] = part.get("id") or call["id"]
            call |= {k: v for k, v in part.items() if v is not None and k not in ("function", "id", "index")}
            for key, value in (function if isinstance(function, dict) else {}).items():
                if isinstance(value, str):
                    call["function"][key] = call["function"].get(key, "") + value
