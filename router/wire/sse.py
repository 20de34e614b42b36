"""Server-sent events: cutting a byte stream into them, and reading the chunks of a chat answer that they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from router.wire.json_text import dumps, loads

DONE = b"[DONE]"
LEAST_LOGPROB = -9999.0
"""What OpenAI tells of a token that is too unlikely to be told."""
_LAST = b"data: [DONE]"
_NEWLINE = rb"(?:\r\n|\n|\r(?!\n))"
_END = re.compile(_NEWLINE + _NEWLINE)
_SURE_END = re.compile(rb"(?:\r\n|\n)(?:\r\n|\n|\r(?=[^\n]))|\r(?!\n)" + _NEWLINE)
"""The same where more may come: a return that ends the bytes may be half a newline, as the one before it is whole."""
LEAST_EVENT_BYTES = 100
PIECE_BYTES = 2**20
MOST_LINES = 10_000
"""An event of more is none: to take it apart would hold up everybody else."""
COMMENT = b":"
"""How an event begins that says nothing."""
LOST = b": unreadable\n:\n\n"  # of two lines: those of one are passed over unread
"""What a wire that translates puts in the place of what it could not read: clients pass it over, ``read`` tells it."""
UNREADABLE = b"data: unreadable\n\n"
"""What it puts in the place of an event of which nobody knows what it says: who reads on takes it for one."""
_FIELDS = (COMMENT, b"data", b"event", b"id", b"retry")
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
        if b"\n" not in data and b"\r" not in data:  # a long event's middle: one byte is found sooner than two
            self._wait(piece)
            return b""
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


def work(events: bytes) -> int:
    """How many bytes of an ordinary stream make as much work: each event takes some, however short it is."""
    return max(len(events), LEAST_EVENT_BYTES * events.count(b"\n\n"))


def split(events: bytes) -> list[bytes]:
    """Whole events, each with its closing blank line."""
    if b"\r" not in events:
        if events.find(b"\n") == len(events) - 2:  # a single line, as most pieces of a stream are
            return [events]
        return [event + b"\n\n" for event in events.split(b"\n\n") if event]
    found, start = [], 0
    for end in _ends(events):
        found.append(events[start:end])
        start = end
    return found


def _ends(events: bytes) -> Iterator[int]:
    """Where events end, looked for piece by piece: each search holds the interpreter."""
    at = 0
    while at < len(events):
        until = at + PIECE_BYTES
        end = _END.search(events, at, until)
        if end is not None and end.end() == until:
            end = _END.match(events, end.start())  # a newline may be cut
        if end is not None:
            yield end.end()
        at = end.end() if end is not None else until - _LONGEST_END if until < len(events) else until


def payload(event: bytes) -> bytes:
    """The event's data; empty for comments and keep-alives."""
    if event.find(b"\n") == len(event) - 2 and event.startswith(b"data:") and b"\r" not in event:
        return event[6:-2] if event.startswith(b"data: {") else event[5:].strip()
    lines = (line[5:].removeprefix(b" ") for line in _lines(event) if line.startswith(b"data:"))
    return b"\n".join(lines)


def _lines(event: bytes) -> list[bytes]:
    """An event's lines, none where there are too many to be an event's."""
    if b"\r" in event:
        if event.count(b"\r") > MOST_LINES:
            return []
        event = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return event.split(b"\n") if event.count(b"\n") <= MOST_LINES else []


def named(event: bytes) -> bytes:
    """The event's name; empty where it has none, as chat completions' events."""
    if b"event:" not in event:
        return b""
    return next((line[6:].strip() for line in _lines(event) if line.startswith(b"event:")), b"")


def ends(events: bytes) -> bool:
    """Whether the last of these events says that the stream is done."""
    return events[-16:].rstrip().endswith(DONE)  # no chunk ends so: JSON ends in a bracket


def encode(chunk: Any) -> bytes:
    return b"data: %b\n\n" % dumps(chunk)


def parse(event: bytes) -> dict[str, Any] | None:
    """The event's JSON object; None where it holds none (a comment, [DONE], or no JSON)."""
    return read(event)[0]


def exact(event: bytes) -> dict[str, Any] | None:
    """The event's JSON object, where any parser reads it; else None."""
    data = payload(event)
    if not data.startswith(b"{"):
        return None
    try:
        found: dict[str, Any] = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return found


def read(event: bytes) -> tuple[dict[str, Any] | None, bool]:
    """(the event's JSON object or None, whether all that it says is in there)."""
    if (found := exact(event)) is not None:
        return found, True
    if event.startswith(COMMENT) and event.find(b"\n") == len(event) - 2:
        return None, True
    data = payload(event)
    if not data or data == DONE:
        lines = _lines(event)
        return None, event != LOST and lines != [] and all(line.startswith(_FIELDS) for line in lines if line.strip())
    try:
        chunk, whole = loads(data)
    except ValueError:
        return None, False
    return (chunk, whole) if isinstance(chunk, dict) else (None, not chunk)


def chunks(events: bytes) -> tuple[list[dict[str, Any]], bool]:
    """(the JSON objects of whole events in order, whether all that the events say is in there).

    Read in one go where every event is a single line, as chat completions' are: many small calls of
    the parser cost several times one.
    """
    lines = [e for e in events.split(b"\n\n") if e and e != _LAST and (e[:1] != COMMENT or b"\n" in e)]
    if all(line.startswith(b"data: {") and b"\n" not in line for line in lines) and b"\r" not in events:
        try:
            found: list[dict[str, Any]] = orjson.loads(b"[%b]" % b",".join([line[6:] for line in lines]))
            if len(found) == len(lines):
                return found, True
        except orjson.JSONDecodeError:
            pass  # one of them is broken: tell which, one by one
    one_by_one = [read(event) for event in split(events)]
    return [chunk for chunk, _ in one_by_one if chunk is not None], all(whole for _, whole in one_by_one)


def says_something(chunk: Mapping[str, Any]) -> bool:
    """Whether a chunk is part of an answer: a role, a keep-alive or token counts alone are none."""
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            piece = piece_of(choice)
            if choice.get("finish_reason") or any(v for k, v in piece.items() if k != "role"):
                return True
    return False


def piece_of(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a choice says: a chunk's ``delta``, an answer's ``message``."""
    piece = choice.get("delta")
    if not isinstance(piece, dict):
        piece = choice.get("message")
    return piece if isinstance(piece, dict) else {}


def is_usage_only(chunk: Mapping[str, Any]) -> bool:
    """Whether this is the chunk that ``stream_options.include_usage`` adds at the end of a stream."""
    return not chunk.get("choices") and isinstance(chunk.get("usage"), dict)


def without_logprobs(found: dict[str, Any]) -> bool:
    """Takes token probabilities out of an answer or a chunk. Whether there were any."""
    choices, there = found.get("choices"), False
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            there |= choice.pop("logprobs", None) is not None
    return there


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
            found.append(max(float(value), LEAST_LOGPROB) if value < 0.0 else 0.0)
    return found


def tokens_of(choice: Any, count: int) -> list[str]:
    """The texts of the first ``count`` tokens of which ``logprobs_of`` tells the probabilities."""
    known = (t for t in entries_of(choice) if isinstance(t, dict))
    texts = (t.get("token") for t in known if isinstance(t.get("logprob"), (int, float)))
    return [text if isinstance(text, str) else "" for text, _ in zip(texts, range(count), strict=False)]
