"""What an answer cost where it tells less than that: its usage, estimated from its texts.

All of a text that a model wrote counts, wherever it stands: what it thought and the arguments of its calls too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from router.contracts.records import Usage
from router.wire.json_text import dumps
from router.wire.usage import ToldUsage, name_of

BYTES_PER_TOKEN = 4
MOST_CHARACTERS = 32
"""More than that a token of ordinary text has on no average. Words have four to six; the longest of any vocabulary have
some forty, and none of another script as many as Latin. Runs of one character and coded files are longer: they are
left out."""
LEAST_SHARE = MOST_CHARACTERS // BYTES_PER_TOKEN
"""How many times more tokens must be expected of a text for it to be looked at whether it can have so few."""
USUAL_TIERS = frozenset({"auto", "default", "standard", "standard_only", "on_demand"})
_NO_WORDS = re.compile(r"(.)\1{3,}|data:[\w.+/-]+;base64,[\w+/=-]+", re.DOTALL)
_LETTERS = re.compile(r"[\w+/=-]+")
PIECE_CHARS, OVERLAP_CHARS = 65_536, 256
_THOUGHTS = ("reasoning", "think", "thought")
"""What the name of a field has in it that holds thoughts."""
_TEXTS = frozenset(
    {"text", "thinking", "thought", "reasoning", "reasoning_content", "summary", "content", "transcript"}
)
"""Fields whose string is a text, inside of those."""


def said_in(message: Mapping[str, Any]) -> str:
    """All of an answer that its model wrote. Thoughts that are told in several fields are the same ones."""
    texts = [*_texts(message.get("content")), *_texts(message.get("refusal")), *_texts(message.get("audio"))]
    for call in _list(message.get("tool_calls")):
        inside = _dict(_dict(call).get("function") or _dict(call).get("custom"))
        texts += [text for name in ("name", "arguments", "input") if isinstance(text := inside.get(name), str)]
    further = _dict(message.get("provider_specific_fields")).items()
    thoughts = ("".join(_texts(value)) for name, value in (*message.items(), *further) if _is_thought(name))
    return "".join([max(thoughts, key=len, default=""), *texts])


def asked_in(body: Mapping[str, Any]) -> str:
    """The texts that a model surely reads for a request."""
    texts = [text for message in _list(body.get("messages")) for text in _texts(_dict(message).get("content"))]
    if body.get("tools") and body.get("tool_choice") != "none":
        texts.append(dumps(body["tools"]).decode())
    return "\n".join(texts)


def estimated_usage(input_tokens: int, said: Sequence[str], seen_tokens: int = 0) -> Usage:
    """Of an answer's choices, each of which ``said`` something: as many tokens as were seen one by one, else four bytes
    each."""
    output = seen_tokens or sum(-(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN) for text in said)
    return Usage(input_tokens=input_tokens, output_tokens=output, estimated=True)


def usage_or(
    told: ToldUsage | None,
    guessed: Callable[[], Usage],
    *,
    asked_tier: object = None,
    cut: bool = False,
    said: str = "",
    asked_tokens: int = 0,
    asked: Callable[[], str] = str,
) -> Usage:
    """What was told; what was not as ``guessed``. Where an answer was ``cut`` off what it told is of its beginning.
    Fewer tokens are not believed than what was ``said`` can be, nor than what was ``asked``, of which some
    ``asked_tokens`` are expected. ``asked_tier`` was served where nothing says which one was."""
    usage = told.usage if told is not None else guessed()
    if told is not None and usage.billed_usd is None:
        few = usage.output_tokens < told.total or exceeds(said, usage.output_tokens, free=told.free)
        read = usage.input_tokens
        unread = told.lacks_input or (
            asked_tokens > LEAST_SHARE * (read + 1) and exceeds(asked(), read, free=told.free)
        )
        if cut or few or unread or told.lacks_output:
            usage = _mended(told, guessed(), unread=unread, unsaid=cut or few or told.lacks_output)
    if usage.service_tier is None and asked_tier is not None and (tier := name_of(asked_tier)) not in USUAL_TIERS:
        usage = replace(usage, service_tier=tier)
    if usage.service_tier in USUAL_TIERS:
        usage = replace(usage, service_tier=None)
    return usage


def _mended(told: ToldUsage, guess: Usage, *, unread: bool, unsaid: bool) -> Usage:
    """What was told, with what is guessed of the rest, where that is more. Of a total alone what the prompt leaves is
    the answer's."""
    usage = told.usage
    read, said = usage.input_tokens, usage.output_tokens
    if told.total:
        read = min(guess.input_tokens, told.total)
        said = max(told.total - read, min(guess.output_tokens, told.total))
    else:
        read = max(read, guess.input_tokens) if unread else read
        said = max(said, guess.output_tokens) if unsaid else said
    if (read, said) == (usage.input_tokens, usage.output_tokens):
        return usage
    return replace(usage, input_tokens=read, output_tokens=said, estimated=True)


def unless_free(told: ToldUsage | None) -> ToldUsage | None:
    """The same without a bill of nothing, which is not believed of a model that has a price. None where it told no
    more."""
    if told is None or told.usage.billed_usd != 0:
        return told
    if told.lacks_input and told.lacks_output and not told.total:
        return None
    return replace(told, usage=replace(told.usage, billed_usd=None))


def exceeds(said: str, tokens: int, *, free: bool = False) -> bool:
    """Whether a text is longer than any tokenizer's so many tokens; ``free``: than a token's worth of what costs
    nothing."""
    if not tokens and not free:
        return bool(said)
    least = MOST_CHARACTERS * (tokens + 1)
    return len(said) >= least and _are_words(said, least)


def _are_words(said: str, least: int) -> bool:
    """Whether that many characters stand there beside runs of one of them and files, each of which counts for one. It
    is looked at piece by piece, since each look holds the interpreter, and no further than need be."""
    found = at = 0
    while found < least and at < len(said):
        end = at + PIECE_CHARS
        if (run := _NO_WORDS.search(said, at, end)) is not None:
            found, at = found + run.start() - at + 1, run.end()
            is_file = said.startswith("data:", run.start())
            while is_file and at == end and (more := _LETTERS.match(said, at, end := end + PIECE_CHARS)):
                at = more.end()
        else:
            behind = end - OVERLAP_CHARS if end < len(said) else len(said)
            found, at = found + behind - at, behind
            time.sleep(0)  # lets the event loop in
    return found >= least


def _is_thought(name: str) -> bool:
    return any(part in name for part in _THOUGHTS)


def _texts(value: Any) -> Iterator[str]:
    """The texts of a field, however they are wrapped."""
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, list):
            left += reversed(found)
        elif isinstance(found, dict):
            left += [part for name, part in found.items() if name in _TEXTS]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
