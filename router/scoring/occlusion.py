"""Which words of a request its score rests on: each is left out in turn, and the request is scored anew.

Robust to whatever a scorer is made of, and in terms that a reader can check: "without this word the score
would be 0.71" (Zeiler and Fergus 2014, arXiv 1311.2901, for parts of images; Li et al. 2016, arXiv 1612.08220,
for words).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router.scoring.linear import logit
from router.scoring.text.features import USER_WINDOW, Features, extract, window

MOST_WORDS = 200
"""Different words that are tried, the first ones of the message: a score costs some 100 microseconds."""
_WORD = re.compile(r"\w+(?:['’]\w+)?")


@dataclass(frozen=True, slots=True)
class Effect:
    """A word, the score without it, and what it adds to the score's log odds: positive speaks for the student."""

    word: str
    score_without: float
    log_odds: float


def effects(body: Mapping[str, Any], message: str, score: Callable[[Features], float]) -> list[Effect]:
    """The words of ``message``, strongest first. ``body`` is the request, parsed chat-completions JSON, whose last
    user turn has the message in it."""
    words = dict.fromkeys(w.lower() for w in _WORD.findall(window(message, USER_WINDOW)))
    whole, found = logit(score(extract(body))), []
    for word in list(words)[:MOST_WORDS]:
        without = score(extract(_without(body, word)))
        found.append(Effect(word, without, whole - logit(without)))
    return sorted(found, key=lambda e: -abs(e.log_odds))


def _without(body: Mapping[str, Any], word: str) -> dict[str, Any]:
    """A copy whose last user turn lacks the word."""
    messages = list(body["messages"])
    users = [i for i, m in enumerate(messages) if isinstance(m, dict) and m.get("role") == "user"]
    last = users[-1] if users else len(messages) - 1
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)\s?", re.I)
    content = messages[last].get("content")
    if isinstance(content, str):
        shorter: Any = pattern.sub("", content)
    else:
        shorter = [
            {**p, "text": pattern.sub("", p["text"])} if isinstance(p, dict) and isinstance(p.get("text"), str) else p
            for p in content or []
        ]
    messages[last] = {**messages[last], "content": shorter}
    return {**body, "messages": messages}
