"""Reasoning: the student learns what the teacher thought, and to answer without saying it.

After Hsieh et al., "Distilling Step-by-Step! Outperforming Larger Language Models with Less Training Data and Smaller
Model Sizes", 2023: answering and thinking are two tasks of one student, told apart by a mark in the prompt, so that
what it learns by thinking serves an answer given at once. There the second task's output is the rationale alone; here
it is the rationale and then the answer, as the teacher wrote them, so that a client that puts the mark into its prompt
gets the worked answer, which a small student needs where it must calculate. Without the mark nothing is thought aloud:
the rationale costs no token where it is not wanted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from distiller.data.rows import DatasetRow, Skip
from distiller.data.turns import Turn
from distiller.training.batches import EncodedRow, encode
from distiller.training.methods.hard import HardLabel
from router.engine.template import PromptTemplate
from router.errors import TrainingError
from router.wire import rationale

_FINAL = re.compile(r"\n(?=####[^\n]*\Z)")


@dataclass(frozen=True)
class Reasoning(HardLabel):
    """Cross-entropy on the answer, and on rationale and answer where ``marker`` stands in the prompt.

    ``weight``: what a row's second task counts beside its first, however much longer it is, as the paper weighs the
    means of two losses. ``seen`` counts rows with and without a rationale.
    """

    marker: str
    weight: float
    seen: Counter[str] = field(default_factory=Counter)

    def encode(
        self, rows: Iterable[DatasetRow], prompts: PromptTemplate, max_tokens: int
    ) -> tuple[list[EncodedRow], Counter[Skip]]:
        """Each row once, and once more with the mark where it has a rationale and that fits.

        Raises:
            TrainingError: no row of this split, nor of one before it, has a rationale.
        """
        made: list[EncodedRow] = []
        left_out: Counter[Skip] = Counter()
        for row in rows:
            thought, answer = parted(row)
            plain, refused = encode([replace(row, answer=answer)], prompts, max_tokens)
            made += plain
            left_out += refused
            self.seen["with" if thought else "without"] += 1
            if not thought:
                continue
            worked = replace(row, messages=marked(row.messages, self.marker), answer=f"{thought}\n{answer}")
            for long in encode([worked], prompts, max_tokens)[0]:
                answer_tokens = plain[0].answer_tokens if plain else long.answer_tokens
                weight = row.weight * self.weight * answer_tokens / long.answer_tokens
                made.append(replace(long, weight=weight))
        if self.seen["without"] and not self.seen["with"]:
            raise TrainingError(
                "no answer holds a rationale: the method needs answers with <think>...</think> or a last line that "
                "begins with ####, or records whose messages have reasoning_content"
            )
        return made, left_out


def parted(row: DatasetRow) -> tuple[str, str]:
    """The rationale, "" where there is none, and the answer without it.

    A rationale is what the API told apart from the answer; else what stands between the marks of a thinking model; else
    all before a last line that begins with ``####``, which then is the answer.
    """
    if row.rationale:
        return row.rationale.strip(), row.answer
    said = rationale.parted(row.answer)
    if said.rationale:
        return said.rationale, said.answer
    worked, *final = _FINAL.split(row.answer.rstrip(), maxsplit=1)
    return (worked.strip(), final[0]) if final and worked.strip() else ("", row.answer)


def marked(messages: list[Turn], marker: str) -> list[Turn]:
    """The prompt with the mark behind the last thing said. There, since not every template has system messages, and
    since a prompt's two tasks then begin alike."""
    *before, last = messages
    return [*before, {**last, "content": f"{last['content']}\n\n{marker}"}]
