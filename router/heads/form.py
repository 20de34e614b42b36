"""A head's answer in the teacher's own form, word for word: the text that stood most often for its fields, and where
these never stood together, the newest answer with their values in the place of its own."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from router.heads.answers import TOOL, Fields

MOST_TEXTS = 4096
"""Answers whose text is kept: the most frequent."""
ARGUMENTS = "arguments"


def _layouts() -> tuple[Callable[[Any], str], ...]:
    """How APIs and people write JSON, the most usual first."""
    shapes: tuple[dict[str, Any], ...] = ({}, {"separators": (",", ":")}, {"indent": 2}, {"indent": 4})

    def writer(shape: Mapping[str, Any], plain: bool) -> Callable[[Any], str]:
        return lambda value: json.dumps(value, ensure_ascii=plain, **shape)

    return tuple(writer(shape, plain) for plain in (False, True) for shape in shapes)


LAYOUTS = _layouts()


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How the teacher writes one kind's answers. ``texts``: of a label or JSON what was said, of a call its arguments
    as they were written. ``pattern`` is JSON whose values are to be replaced, None where answers are labels;
    ``layout`` is its place among ``LAYOUTS``."""

    texts: Mapping[Fields, str]
    pattern: Any = None
    layout: int = 0

    @classmethod
    def of(cls, answers: Iterable[tuple[Fields, Mapping[str, Any]]]) -> Self:
        """From fields with the message that they came from, oldest first."""
        said = defaultdict[Fields, Counter[str]](Counter)
        layouts, pattern = Counter[int](), None
        for fields, message in answers:
            text = _text(message)
            said[fields][text] += 1
            if fields[0][0] != "":
                pattern = json.loads(text or "{}")
                layouts[_layout(pattern, text)] += 1
        often = sorted(said, key=lambda fields: -said[fields].total())[:MOST_TEXTS]
        texts = {fields: said[fields].most_common(1)[0][0] for fields in often}
        return cls(texts, pattern, layouts.most_common(1)[0][0] if layouts else 0)

    def message(self, fields: Fields) -> dict[str, Any]:
        """OpenAI's assistant message. Its call has no id, which is its client's matter."""
        named = dict(fields)
        text = self.texts.get(fields)
        if text is None:
            text = named[""] if "" in named else LAYOUTS[self.layout](_filled(self.pattern, "", self._values(named)))
        if TOOL not in named:
            return {"role": "assistant", "content": text}
        call = {"type": "function", "function": {"name": named[TOOL], ARGUMENTS: text}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    def _values(self, named: Mapping[str, str]) -> dict[str, str]:
        if TOOL not in named:
            return dict(named)
        return {name.removeprefix(f"{ARGUMENTS}."): value for name, value in named.items() if name != TOOL}

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"texts": list(self.texts.items()), "pattern": self.pattern, "layout": self.layout}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """What ``plain`` gave. Raises KeyError, TypeError or ValueError where it is something else."""
        texts = {tuple((str(name), str(value)) for name, value in fields): str(t) for fields, t in plain["texts"]}
        if not 0 <= plain["layout"] < len(LAYOUTS):
            raise ValueError(f"no layout {plain['layout']}")
        return cls(texts, plain["pattern"], plain["layout"])


def _text(message: Mapping[str, Any]) -> str:
    calls = message.get("tool_calls")
    return str(calls[0]["function"].get(ARGUMENTS) or "{}") if calls else str(message["content"])


def _layout(value: Any, text: str) -> int:
    return next((place for place, write in enumerate(LAYOUTS) if write(value) == text.strip()), 0)


def _filled(pattern: Any, path: str, values: Mapping[str, str]) -> Any:
    """The pattern with ``values``, JSON by their paths, in the place of its own."""
    if isinstance(pattern, dict) and pattern:
        return {key: _filled(inner, f"{path}.{key}" if path else key, values) for key, inner in pattern.items()}
    if isinstance(pattern, list) and pattern:
        return [_filled(inner, f"{path}.{n}" if path else str(n), values) for n, inner in enumerate(pattern)]
    return json.loads(values[path]) if path in values else pattern
