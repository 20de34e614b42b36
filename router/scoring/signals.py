"""What the student's own answer says about itself: its token probabilities and its words, summarised.

Quantiles beside the mean, since one hesitant token in a confident answer is what tells a wrong field
or a wrong digit (Gupta et al. 2024, "Language Model Cascades: Token-level Uncertainty and Beyond",
arXiv 2404.10136). The runners-up (``top_logprobs``) are not asked for: beside the chosen token's own
probability the margin to the next told nothing more, at two and a half times the bytes on the wire.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import orjson

from router.contracts.records import Signals

FLOOR = -20.0
"""Log-probabilities below this, and such as no number, count as this: e**-20 is as good as never."""
ANSWERS = 1 << 16
"""Numbers that stand for short answers: enough that the labels of one task rarely share one, too few to tell
what a rare answer said."""
_SHORT_CHARS, _READ_CHARS, _GRAM = 80, 4000, 4
# fmt: off
_HEDGES = frozenset({
    "apologies", "apologise", "apologize", "can't", "cannot", "guess", "maybe", "might", "perhaps", "possibly",
    "presumably", "probably", "seems", "sorry", "unable", "uncertain", "unclear", "unfortunately", "unsure",
})
# fmt: on
_APART = str.maketrans(dict.fromkeys('.,;:!?"()[]{}<>…。，！？；：', " "))
_SENTENCE = re.compile(r"[.!?](?=\s|$)|[。！？]|\n+")


def summarise(
    logprobs: Sequence[float], complete: bool, text: str | None = None, held: Signals | None = None
) -> Signals:
    """Summarises the natural log-probabilities of the tokens seen so far, in their order, and the text that they
    make, where it is known.

    ``complete``: the whole answer was seen, not only the first tokens of a stream; ``held`` are then the
    same signals of those first tokens alone. Without any token there is no evidence of confidence, so every
    summary but the sum stands at ``FLOOR``.
    """
    clean = [(p if p < 0.0 else 0.0) if p > FLOOR else FLOOR for p in logprobs]  # NaN fails the comparison: FLOOR
    ordered, total = sorted(clean) or [FLOOR], sum(clean)
    signals = Signals(
        tokens=len(clean),
        sum_logprob=total,
        mean_logprob=total / len(clean) if clean else FLOOR,
        min_logprob=ordered[0],
        first_logprob=clean[0] if clean else FLOOR,
        q10_logprob=_quantile(ordered, 0.10),
        q25_logprob=_quantile(ordered, 0.25),
        q50_logprob=_quantile(ordered, 0.50),
        complete=complete,
        held=held,
    )
    if text:
        read_words(text, signals)
    return signals


def of_answer(logprobs: Sequence[float], text: str | None, tokens: Sequence[str], hold: int) -> Signals | None:
    """The signals of a whole answer, with those of its first ``hold`` tokens where it is longer, as acceptance
    would see it in a stream; None without token probabilities. ``tokens`` are the tokens' own texts."""
    if not logprobs:
        return None
    longer = 0 < hold < len(logprobs)
    held = summarise(logprobs[:hold], False, "".join(tokens[:hold])) if longer else None
    return summarise(logprobs, True, text, held)


def _quantile(ordered: list[float], q: float) -> float:
    """The ``q`` quantile of ascending values, linear between neighbours as numpy's default is; ``q`` < 1."""
    at = q * (len(ordered) - 1)
    low = int(at)
    value = ordered[low]
    return value + (at - low) * (ordered[low + 1] - value) if at > low else value


def read_words(text: str, signals: Signals) -> None:
    """Adds what the words of an answer, or of its beginning, tell.

    Of a long text its beginning is read: a loop or a hedge rarely waits for longer.
    """
    begin = text[:_READ_CHARS].lower()
    words = begin.translate(_APART).split()
    if len(words) >= 2 * _GRAM:
        grams = len(words) - _GRAM + 1
        signals.distinct = len(set(zip(*(words[i:] for i in range(_GRAM)), strict=False))) / grams
    signals.hedges = sum(map(_HEDGES.__contains__, words))
    signals.sentences = len(_SENTENCE.findall(begin.strip()))
    if signals.complete and begin.lstrip()[:1] in ("{", "["):
        signals.parses = _parses(text)
    if signals.complete and len(text) <= _SHORT_CHARS:
        signals.answer = zlib.crc32(" ".join(words).encode("utf-8", "replace")) % ANSWERS


def _parses(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
