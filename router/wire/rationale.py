"""What a model thought, where it stands in its answer's text: reasoning models without a parser before them write
both into the content, between marks of their own.

Thoughts come first. Their beginning may be missing, since some templates put the opening mark into the prompt; so may
their end, where the answer was cut off while it still thought. A mark that the prompt speaks of was asked for, and is
part of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_TAGS = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think", "reflection", "scratchpad")
_MARKS: tuple[tuple[str, str], ...] = (
    *((f"<{tag}>", f"</{tag}>") for tag in _TAGS),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|begin_of_thinking|>", "<|end_of_thinking|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
    ("<unused94>thought", "<unused95>"),
    ("<|channel>thought", "<channel|>"),
)
"""(opening, closing) mark, as open models spell them."""
_HALF_OPEN = frozenset({"</think>", "</thinking>", "</seed:think>", "[/THINK]", "◁/think▷", "<|END_THINKING|>"})
"""Closing marks that come alone where the prompt held the opening one."""
_WRAPPED: tuple[tuple[str, str], ...] = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|start|>assistant<|channel|>final<|message|>", "<|return|>"),
    ("<|channel|>final<|message|>", "<|return|>"),
)
"""What some put around the answer that follows their thoughts; the closing mark may be missing."""

MOST_THOUGHTS = 32
"""That are parted from the beginning of one answer: what goes on so is no answer."""

_FIELDS = ("reasoning_content", "reasoning", "thinking")
_MARKED = re.compile("|".join(re.escape(m) for pair in _MARKS for m in pair))


class AnswerParts(NamedTuple):
    """An answer's text without what was thought before it. ``mixed``: marks of thoughts are left in it."""

    rationale: str
    answer: str
    mixed: bool = False


def parted(content: str, prompt: Iterable[str] = ()) -> AnswerParts:
    """The content's thoughts and the rest; ``prompt`` are the texts that were asked. Where nothing was thought, the
    answer is the very content."""
    if not may_think(content):
        return AnswerParts("", content)
    asked = "\n".join(prompt)
    marks = [(opening, closing) for opening, closing in _MARKS if opening not in asked and closing not in asked]
    thoughts: list[str] = []
    rest = content
    while len(thoughts) < MOST_THOUGHTS and (found := _first(rest, marks, begun=not thoughts)) is not None:
        thought, rest = found
        thoughts.append(thought.strip())
    if thoughts:
        rest = _unwrapped(rest.strip())
    mixed = any(_on_its_own(rest, mark) for pair in marks for mark in pair)
    return AnswerParts("\n\n".join(filter(None, thoughts)), rest, mixed)


def may_think(content: str) -> bool:
    """Whether any mark of thoughts stands in it."""
    return _MARKED.search(content) is not None


def asked_in(messages: Iterable[Any]) -> list[str]:
    """The texts of a request in which a mark is the client's own wish: all but what a model said."""
    return [
        content
        for message in messages
        if isinstance(message, Mapping) and message.get("role") != "assistant"
        for content in _texts(message.get("content"))
    ]


def without_thoughts(content: str, messages: Iterable[Any]) -> str:
    """An assistant turn's text as a student reads it again: the same object where nothing was thought in it."""
    return parted(content, asked_in(messages)).answer if may_think(content) else content


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else ()
    return [part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]


def thoughts_of(message: Mapping[str, Any]) -> str:
    """What a message tells as thought beside its content, "" where it tells nothing."""
    found = (value for name in _FIELDS if isinstance(value := message.get(name), str) and value.strip())
    return next(found, "")


def _first(text: str, marks: Iterable[tuple[str, str]], *, begun: bool) -> tuple[str, str] | None:
    """(the thought that the text begins with, what follows it); None where it begins with none. ``begun``: the opening
    mark may have been in the prompt."""
    told = text.lstrip()
    for opening, closing in marks:
        if told.startswith(opening):
            thought, _, rest = told[len(opening) :].partition(closing)
            return thought, rest
    for opening, closing in marks if begun else ():
        at = text.find(closing) if closing in _HALF_OPEN else -1
        if at >= 0 and opening not in text[:at] and _ends_line(text, at, closing):
            return text[:at], text[at + len(closing) :]
    return None


def _unwrapped(answer: str) -> str:
    for opening, closing in _WRAPPED:
        if answer.startswith(opening):
            return answer[len(opening) :].removesuffix(closing).strip()
    return answer


def _ends_line(text: str, at: int, mark: str) -> bool:
    """Whether a mark stands at the end of its line, or at the beginning of one: where it is spoken of, it does not."""
    after, before = text[at + len(mark) :], text[:at]
    return not after.strip() or after.lstrip(" ").startswith("\n") or not before.rpartition("\n")[2].strip()


def _on_its_own(text: str, mark: str) -> bool:
    at = text.find(mark)
    return at >= 0 and _ends_line(text, at, mark)
