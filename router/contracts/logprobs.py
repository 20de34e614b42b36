"""The likeliest tokens at each position of an answer, as its API told them, in one compact text.

A text, since most readers of a record do not look inside: one string costs them nothing, where 20 tokens at each of
500 positions would cost milliseconds a record. It is JSON: a list of ``[token, logprob, [[token, logprob], ...]]``, a
token as its text, or as a list of its bytes where these alone are no UTF-8 (part of a character).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

BETWEEN_PAUSES = 50
MOST_BEYOND = 16
"""Tokens behind an answer that may have ended it: a stop string's."""
DIGITS = 4
"""Decimals kept of a logarithm: 0.005% of a probability, beyond what an API's own 16-bit arithmetic repeats."""


@dataclass(frozen=True, slots=True)
class Position:
    """One emitted token, and the likeliest ones there: natural logarithms of their probabilities.

    ``top`` is sparse: what its probabilities lack to 1 belongs to all other tokens together. The emitted token need
    not be in it. Tokens are bytes, since one may hold a part of a character.
    """

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


def packed(positions: Iterable[Position]) -> str:
    """The text to keep them by."""
    return _text([
        [_written(p.token), round(p.logprob, DIGITS), [[_written(t), round(lp, DIGITS)] for t, lp in p.top]]
        for p in positions
    ])  # fmt: skip


def packed_as_told(entries: Sequence[Any], pause: Callable[[], object] = lambda: None) -> str:
    """The same from OpenAI's ``logprobs.content``; entries that are malformed are passed over. 20 tokens at each of
    500 positions take about 10 ms of CPU: ``pause`` is called every millisecond or so."""
    rows = []
    for n, entry in enumerate(entries, 1):
        if (emitted := _told(entry)) is not None:
            others = entry.get("top_logprobs")
            top = [_told(other) for other in others] if isinstance(others, list) else []
            rows.append([*emitted, [other for other in top if other is not None]])
        if n % BETWEEN_PAUSES == 0:
            pause()
    return _text(rows)


def unpacked(text: str) -> list[Position]:
    """What ``packed`` wrote."""
    return [
        Position(_read(token), logprob, tuple([(_read(other), lp) for other, lp in top]))
        for token, logprob, top in json.loads(text)
    ]


def spelled(positions: Iterable[Position]) -> bytes:
    """All that the emitted tokens say, in UTF-8 where they are whole. It may end in a mark of the end that the
    answer's text does not show."""
    return b"".join([p.token for p in positions])


def within_answer(entries: Sequence[Any], text: str | None, finish_reason: str | None) -> int:
    """How many of the tokens told of (OpenAI's ``logprobs.content``, or its last ones) are the answer's, whose whole
    ``text`` is given.

    What ends an answer is no token of it: the mark of its end, which some engines tell of under its name, some as an
    empty text and some not at all, and a stop string, which is taken out of the text again, with the whole of a token
    that it begins in. All of them where the answer did not end by itself, or where its text is not what the tokens
    spell (a tool call, say).
    """
    if finish_reason != "stop" or text is None:
        return len(entries)
    said, after = text.encode("utf-8", "replace"), b""
    for beyond in range(min(len(entries), MOST_BEYOND) + 1):
        if beyond == len(entries):
            return 0 if not said else len(entries)
        spelled_as = _spelling(entries[-1 - beyond])
        if spelled_as is None or _closes(said, spelled_as, after):
            return len(entries) - beyond
        after = spelled_as
    return len(entries)


def without_end(tokens: int, told: int, beyond: int, ends: int = 1) -> int:
    """How many of the ``tokens`` that an engine counts are the answer's, of which it tells ``told``, and of ``beyond``
    more that ended it. Some engines count the mark of an end and do not tell of it: up to so many ``ends``; of several
    answers llama-server counts one, and no fewer are there than it tells."""
    if not told:
        return tokens
    untold = tokens - told if told < tokens <= told + ends else 0
    return max(tokens - (beyond or untold), told)


def _closes(said: bytes, token: bytes, after: bytes) -> bool:
    """Whether a text ends in this token, or in the beginning of the one ``after`` it, which a stop string cut."""
    return bool(token) and (said.endswith(token) or any(said.endswith(token + after[:n]) for n in range(1, len(after))))


def _spelling(entry: Any) -> bytes | None:
    """What a token is; None where nobody can tell: no token, or part of a character. llama-server tells a token by the
    text that it let go, which may be none, or that of those held back before it: among the likeliest, where it is told
    again by its number, it stands as it is."""
    if isinstance(entry, dict) and (number := entry.get("id")) is not None:
        again = (t for t in entry.get("top_logprobs") or () if isinstance(t, dict) and t.get("id") == number)
        entry = next(again, entry)
    token, raw = (entry.get("token"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
    if not isinstance(token, str) or "\ufffd" in token:
        return None
    try:
        return bytes(raw) if isinstance(raw, list) else token.encode("utf-8", "replace")
    except (TypeError, ValueError):
        return token.encode("utf-8", "replace")


def _text(rows: list[list[Any]]) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def _told(entry: Any) -> list[Any] | None:
    try:
        text, raw, logprob = entry["token"], entry.get("bytes"), round(float(entry["logprob"]), DIGITS)
        if raw is not None and not (len(raw) == len(text) and text.isascii()):  # the text may stand in for a part
            return [_written(bytes(raw)), logprob]
        return [text, logprob] if isinstance(text, str) else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _written(token: bytes) -> str | list[int]:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return list(token)


def _read(token: str | list[int]) -> bytes:
    return token.encode() if isinstance(token, str) else bytes(token)
