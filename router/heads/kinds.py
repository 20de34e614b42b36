"""Kinds of requests: those of one template, by a name that many of them share word for word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Self

from router.scoring.text.features import Features, RequestShape, window
from router.scoring.text.templates import Templates

LEAST_ROWS = 30
"""Requests that make a kind; what comes more seldom is told together."""
NAME_CHARACTERS = 48
SYSTEM_CHARACTERS = 4096
_NUMBERS = re.compile(r"\d+")
_IDS = re.compile(r"\b[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\b")
_WORDS = re.compile(r"\s+")
_ROLES = re.compile(r"^(?:you are |act as |your task is to |please )(?:an? |the )?", re.IGNORECASE)


KindKey = tuple[str, str, str, RequestShape]
"""Task, system prompt, frame around the message, shape."""
PromptKey = tuple[str, str, RequestShape]
"""The same without the frame."""


@dataclass(frozen=True, slots=True)
class RequestKinds:
    """Tells kinds apart: by the task, the system prompt (what seldom is the same as a whole by how it begins) and the
    shape, and among those by the frame around the message."""

    beginnings: Templates
    whole: frozenset[PromptKey]
    frames: Mapping[PromptKey, Templates]

    @classmethod
    def fit(cls, requests: Sequence[Features]) -> Self:
        times = Counter(_prompt_of(request) for request in requests)
        whole = frozenset(key for key, n in times.items() if n >= LEAST_ROWS)
        beginnings = Templates.fit([key[1] for key in times if key not in whole and key[1]])
        found = cls(beginnings, whole, {})
        texts = defaultdict[PromptKey, list[str]](list)
        for request in requests:
            texts[found.prompt_of(request)].append(request.last_user)
        often = {key: Templates.fit(some) for key, some in texts.items() if len(some) >= LEAST_ROWS}
        return cls(beginnings, whole, often)

    def prompt_of(self, request: Features) -> PromptKey:
        """Its task, system prompt and shape."""
        task, system, shape = key = _prompt_of(request)
        return key if key in self.whole else (task, self.beginnings.split(system)[1] or system, shape)

    def of(self, request: Features) -> KindKey:
        """Which kind a request is of, whether or not it was among those that kinds were learnt from."""
        task, system, shape = prompt = self.prompt_of(request)
        frames = self.frames.get(prompt)
        return task, system, frames.split(request.last_user)[1] if frames is not None else "", shape

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "beginnings": asdict(self.beginnings),
            "whole": [_plain_prompt(key) for key in sorted(self.whole, key=repr)],
            "frames": [[_plain_prompt(key), asdict(one)] for key, one in self.frames.items()],
        }

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """What ``plain`` gave. Raises KeyError, TypeError or ValueError where it is something else."""
        whole = frozenset(_prompt(*key) for key in plain["whole"])
        return cls(_templates(plain["beginnings"]), whole, {_prompt(*k): _templates(t) for k, t in plain["frames"]})


def _prompt_of(request: Features) -> PromptKey:
    return request.task, masked(window(request.system, SYSTEM_CHARACTERS)), request.shape


def plain_kind(kind: KindKey) -> list[Any]:
    """As JSON holds it; ``read_kind`` reads it."""
    return [*kind[:3], kind[3]._asdict()]


def read_kind(task: str, system: str, frame: str, shape: Mapping[str, Any]) -> KindKey:
    return task, system, frame, _shape_of(shape)


def _plain_prompt(key: PromptKey) -> list[Any]:
    return [*key[:2], key[2]._asdict()]


def _prompt(task: str, system: str, shape: Mapping[str, Any]) -> PromptKey:
    return task, system, _shape_of(shape)


def _shape_of(plain: Mapping[str, Any]) -> RequestShape:
    return RequestShape(**{**plain, "tools": tuple(plain["tools"])})


def _templates(plain: Mapping[str, Any]) -> Templates:
    return Templates(tuple(plain["beginnings"]), tuple(plain["endings"]))


@lru_cache(512)
def masked(system: str) -> str:
    """A system prompt without what changes from day to day: numbers and ids."""
    return _NUMBERS.sub("0", _IDS.sub("0", system)).strip()


def name_of(kind: KindKey) -> str:
    """What a person calls it: its task, else how its prompt begins."""
    task, system, frame, shape = kind
    if task:
        return task
    said = _WORDS.sub(" ", _ROLES.sub("", (system or frame).strip())).strip()
    words = said if len(said) <= NAME_CHARACTERS else said[:NAME_CHARACTERS].rsplit(" ", 1)[0] + " …"
    tools = f"tools {', '.join(shape.tools[:3])}" if shape.tools else ""
    return ", ".join(filter(None, (words, "" if words else tools))) or "messages without a system prompt"
