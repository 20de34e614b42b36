"""Small changes of a prompt that should change no decision, and suffixes that are meant to.

The kinds of noise are those that routers are tested with (RouterArena, arXiv 2510.00202: typing, case,
spacing, wording): a router whose tier flips with them cannot be trusted. The suffix attack is a black-box search
for words that send any prompt to the teacher (after Shafran et al. 2025, "Rerouting LLM Routers", arXiv
2501.01818): it can cost money, never quality.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from statistics import fmean

Change = Callable[[str, random.Random], str]

_WORD = re.compile(r"[a-z]{4,}")
_POLITE = ("Hi there, I have a question. ", "Could you help me with this? ", "Quick question: ")
_AFTER = (" Please answer carefully.", " Thanks a lot!", " Let me know if anything is unclear.")
_SAME = {
    "find": "determine", "which": "what", "following": "below", "total": "overall", "many": "numerous", "big": "large",
    "correct": "right", "begin": "start", "because": "since", "buy": "purchase", "small": "little", "near": "close to",
    "however": "but", "each": "every", "often": "frequently", "person": "individual", "show": "demonstrate",
}  # fmt: skip


def typos(text: str, r: random.Random) -> str:
    """Two neighbouring letters change places in one of twenty longer words, at least in one."""
    words = list(_WORD.finditer(text))
    for found in r.sample(words, max(1, len(words) // 20)) if words else ():
        at = r.randrange(found.start() + 1, found.end() - 2)
        text = f"{text[:at]}{text[at + 1]}{text[at]}{text[at + 2 :]}"
    return text


def synonyms(text: str, r: random.Random) -> str:
    """Common words by others that mean the same."""
    return re.sub(r"\b[a-z]+\b", lambda m: _SAME.get(m.group(), m.group()), text)


def spaces(text: str, r: random.Random) -> str:
    """One of ten spaces doubled."""
    return re.sub(" ", lambda m: "  " if r.random() < 0.1 else " ", text)


NOISE: dict[str, Change] = {
    "typos": typos,
    "lower case": lambda text, r: text.lower(),
    "upper case": lambda text, r: text.upper(),
    "spaces": spaces,
    "no punctuation": lambda text, r: re.sub(r"(?<=\w)[,;:!](?=\s)", "", text),
    "synonyms": synonyms,
    "phrase before": lambda text, r: r.choice(_POLITE) + text,
    "phrase after": lambda text, r: text + r.choice(_AFTER),
}


def teacher_suffix(
    prompts: Sequence[str], rank: Callable[[str], float], words: Sequence[str], r: random.Random, tries: int = 300
) -> str:
    """Ten of ``words`` that, appended, raise the mean ``rank`` (high: to the teacher) of the prompts most, by
    changing one word at a time as long as that helps."""

    def raised(suffix: Sequence[str]) -> float:
        return fmean(rank(f"{p} {' '.join(suffix)}") for p in prompts)

    best = [r.choice(words) for _ in range(10)]
    at = raised(best)
    for _ in range(tries):
        other = best.copy()
        other[r.randrange(len(other))] = r.choice(words)
        if (reached := raised(other)) > at:
            best, at = other, reached
    return " ".join(best)
