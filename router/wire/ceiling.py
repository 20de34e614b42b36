"""What a request can cost at most, told before anything is asked.

No tokenizer makes more tokens of a text than it has bytes, so that is what the input counts as; an answer is as long
as the client lets it be, else as the model can. Four times what is usual, and more: it is held, not spent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from router.contracts.prices import Price
from router.price_map import listed
from router.pricing import dearest_usd

AROUND_TOKENS = 64
"""What a chat template adds at most to all messages together, beside what each one's fields take."""
MEDIA_TOKENS: Mapping[str, int] = {
    **dict.fromkeys(("image_url", "image", "input_image"), 5_000),  # Claude's largest takes 4,784
    **dict.fromkeys(("file", "document", "input_file"), 100_000),  # a hundred pages, as text and as pictures
    **dict.fromkeys(("video_url", "video", "input_video"), 1_000_000),  # an hour
}
"""What one part of such a type counts as: of what lies elsewhere no bytes are there to count."""
HOLD_MEDIA = frozenset({"url", "data", "image_url", "file_data"})
"""Fields of such a part, or of the object right below it, whose string is the picture, the sound or the file."""
AUDIO_BYTES = 32
"""Of base64 a token of sound: speech at 8 kbit/s, the least, takes 43 where most tokens are made of it."""
OUTPUT_TOKENS = 16_384
"""How long an answer gets at most where neither the request nor litellm's map limits it."""
LIMITS = ("max_completion_tokens", "max_tokens")
SEARCHES = 10
"""How often a model that may search the web does at most, for one answer."""
MOST_CHOICES = 128
"""That are booked of a request of which nobody knows how many it got: OpenAI gives no more."""
LONGEST_NUMBER = 32
"""Characters of a number that a client wrote as a text."""


class Dearest:
    """One request, measured once, where that is wanted: what it can cost at any model. ``body``: a chat completion's,
    or an embedding's."""

    __slots__ = ("_asked", "_body", "_choices", "_input", "_odd", "_one", "_searches", "_tier")

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body, self._input, self._one = body, 0, "messages" in body
        limits = [value for name in LIMITS if (value := body.get(name)) is not None]
        self._asked = max((n for value in limits if type(value) is int and (n := _count(value))), default=None)
        self._odd = max((_count(value) for value in limits if type(value) is not int), default=0)
        self._tier, self._searches = _tier(body), _searches(body)
        self._choices = max(1, _count(body.get("n")), _count(body.get("best_of")))

    @property
    def choices(self) -> int:
        """How many answers it can get: one, unless it asks for more."""
        return min(self._choices, MOST_CHOICES)

    def at_most(self, tokens: int) -> int:
        """So many tokens of one answer, or as many as it may have."""
        return tokens if self._asked is None or self._odd else min(tokens, self._asked)

    def measure(self) -> int:
        """The tokens of its input at most."""
        self._input = self._input or _input_tokens(self._body)
        return self._input

    def usd(self, model: str, price: Price) -> Decimal:
        """US dollars, at a model by the policy's name for it: what it can read and say at most bounds both."""
        reads, says = listed(model)
        measured = self.measure()
        tokens_in = min(measured, reads) if reads and self._one else measured
        if self._asked is None or self._odd:  # nobody knows what a server makes of a limit that is no number
            tokens_out = says or max(OUTPUT_TOKENS, self._odd, self._asked or 0)
        else:
            tokens_out = self._asked if says is None else min(self._asked, says)
        return dearest_usd(tokens_in, tokens_out * self._choices, price, tier=self._tier, searches=self._searches)


def _tier(body: Mapping[str, Any]) -> str | None:
    """The service tier that is asked for, by whatever name: one that no price knows costs what is usual."""
    tier = "fast" if body.get("speed") == "fast" else body.get("service_tier")
    return tier if isinstance(tier, str) else None


def _searches(body: Mapping[str, Any]) -> int:
    """How often the web is searched at most, where it may be."""
    tools = body.get("tools")
    found = SEARCHES if body.get("web_search_options") is not None else 0
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and isinstance(kind := tool.get("type"), str) and "search" in kind:
            found += min(_count(tool.get("max_uses")) or SEARCHES, SEARCHES)
    return found


def _input_tokens(body: Mapping[str, Any]) -> int:
    messages = body.get("messages")
    rest = {name: value for name, value in body.items() if name != "messages"}
    try:
        size = len(orjson.dumps(rest))  # tools have many small fields: a tenth of the time
    except orjson.JSONEncodeError:  # half an emoji, a number or a depth beyond it
        size = _size(rest)
    return AROUND_TOKENS + size + _size(messages)


def _size(value: object) -> int:
    """In bytes, media by what they count as. Without recursion: how deep a request goes is its client's choice."""
    total, left = 0, [value]
    while left:
        found = left.pop()
        if isinstance(found, str):
            total += len(found) if found.isascii() else len(found.encode("utf-8", "surrogatepass"))
        elif isinstance(found, dict):
            total += 4 * (len(found) + sum(map(len, found)))  # names, with quotes and a colon; four bytes a letter
            media, rest = _media(found)
            total += media
            left += rest
        elif isinstance(found, list):
            total += len(found)
            left += found
        else:
            total += 20  # a number, as long as one gets
    return total


def _media(part: dict[str, Any]) -> tuple[int, Iterable[Any]]:
    """What an object counts as where it is a part that shows something, and what of it counts by its length. A message
    is none, whatever type it says that it is."""
    kind = part.get("type")
    if not isinstance(kind, str) or "role" in part or not (kind in MEDIA_TOKENS or kind == "input_audio"):
        return 0, part.values()
    size, rest = 0, list[Any]()
    for fields in (part, *(value for value in part.values() if isinstance(value, dict))):
        for name, value in fields.items():
            if name in HOLD_MEDIA and isinstance(value, str):
                size += len(value)
            elif fields is not part or not isinstance(value, dict):
                rest.append(value)
    if kind == "input_audio":
        return size // AUDIO_BYTES, rest
    return max(MEDIA_TOKENS[kind], 0 if "image" in kind else size), rest


def _count(value: object) -> int:
    """A number of tokens or answers, however it is written: servers take ``"5"`` and ``5.0`` for 5."""
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER:
        try:
            value = float(value)
        except ValueError:
            return 0
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return 0
    return max(0, math.ceil(value))
