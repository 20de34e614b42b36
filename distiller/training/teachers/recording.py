"""What a teacher's API told of its likeliest tokens, in the student's tokens.

A student's position is known where one of the teacher's tokens begins and ends where the student's does. There each of
the teacher's likeliest tokens counts for the student's token of the same bytes; the mass of one that the student has
no token for is left to the rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from distiller.data.rows import DatasetRow
from distiller.training.batches import EncodedRow
from distiller.training.losses.sparse_labels import Rest, SparseTargets
from distiller.training.teachers.weights import differing
from router.contracts.logprobs import Position, unpacked
from router.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor


SAME = 0.98
"""The share of tokens that must agree for two tokenizers to be taken for the same. Not all: a model may now and then
spell a word by other tokens than its tokenizer would."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(slots=True)
class TokenFit:
    """How well the teacher's tokens are the student's: of the answers' tokens, and of those told beside them."""

    tokens: int = 0
    met: int = 0
    told: int = 0
    named: int = 0

    @property
    def same(self) -> bool:
        return self.met >= SAME * self.tokens and self.named >= SAME * self.told


@dataclass(frozen=True)
class RecordedTeacher:
    """Reads rows' ``top_logprobs``: at most ``top`` tokens each, for a loss that takes the ``rest`` in that way.

    ``alignment`` None demands that the teacher's tokenizer is the student's.
    """

    top: int
    rest: Rest
    alignment: str | None
    fit: TokenFit = field(default_factory=TokenFit)

    def __call__(
        self, rows: Sequence[DatasetRow], made: Sequence[EncodedRow], tokenizer: Any
    ) -> list[SparseTargets | None]:
        """What is known of each row; None where nothing was recorded.

        Raises:
            TrainingError: no row has recorded tokens, or they are another tokenizer's and ``alignment`` is None.
        """
        if not self.fit.tokens and not any(row.top_logprobs for row in rows):
            raise TrainingError(
                "no row carries its teacher's likeliest tokens: set teacher.top_logprobs in the policy and let records "
                "come in, or take a method that needs text alone (hard-label, reasoning, confidence)"
            )
        spelt = spellings(tokenizer)
        ids = {spelling: i for i, spelling in reversed(list(enumerate(spelt)))}
        known = [
            self._aligned(row, [spelt[t] for t in one.tokens[one.start :]], ids) if row.top_logprobs else None
            for row, one in zip(rows, made, strict=True)
        ]
        if self.alignment is None and not self.fit.same:
            teachers = ", ".join(sorted({row.teacher for row in rows if row.top_logprobs}))
            more = ", or set alignment: exact, which compares what has the same text in both"
            raise differing("the student's", f"that of {teachers}", more)
        return known

    def _aligned(self, row: DatasetRow, answer: Sequence[bytes], ids: dict[bytes, int]) -> SparseTargets:
        """The row's targets, by where its tokens, spelt out in ``answer``, and the teacher's begin and end."""
        import torch

        told = unpacked(row.top_logprobs)
        theirs = dict(zip(_spans([p.token for p in told]), told, strict=True))
        found = [theirs.get(span) for span in _spans(answer)]
        named = [
            self._named(p, token, ids) if p and p.token == token else {} for p, token in zip(found, answer, strict=True)
        ]
        self.fit.tokens += len(answer) - 1  # the end of the turn is not always told
        self.fit.met += sum(map(bool, named[:-1]))
        widest = max(map(len, named))
        drawn = row.options.get("temperature", 1) == 1 and row.options.get("top_p", 1) == 1
        return SparseTargets(
            ids=_padded([list(n) for n in named], widest, -1, torch.int32),
            log_p=_padded([list(n.values()) for n in named], widest, 0.0, torch.float32),
            drawn=torch.full((len(answer),), drawn),
        )

    def _named(self, position: Position, token: bytes, ids: dict[bytes, int]) -> dict[int, float]:
        """The likeliest tokens that the student has, and the emitted one: unless its being drawn is what counts."""
        likeliest = dict(position.top[: self.top])
        self.fit.told += len(likeliest)
        self.fit.named += sum(other in ids for other in likeliest)
        if self.rest != "sampled":
            likeliest.setdefault(token, position.logprob)
        return {ids[other]: lp for other, lp in likeliest.items() if other in ids}


def _spans(tokens: Sequence[bytes]) -> list[tuple[int, int]]:
    """Where each begins and ends, in bytes."""
    ends = list(accumulate(map(len, tokens)))
    return list(zip([0, *ends], ends, strict=False))


def _padded(rows: Sequence[Sequence[float]], width: int, value: float, kind: Any) -> Tensor:
    import torch

    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=kind)


def spellings(tokenizer: Any) -> list[bytes]:
    """The bytes of every token by its number, b"" where there is none.

    Byte-level vocabularies write each byte as a printable letter of its own (Radford et al., "Language Models are
    Unsupervised Multitask Learners", 2019); SentencePiece's write a space as a low line of its own and single bytes as
    ``<0x0A>``. Added tokens, such as the end of a turn, are spelt as they are written.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    added = set(tokenizer.get_added_vocab())
    byte_level = "Ġ" in vocabulary
    spelt = [b""] * (max(vocabulary.values()) + 1)
    for token, number in vocabulary.items():
        spelt[number] = token.encode() if token in added else _spelt(token, byte_level)
    return spelt


def _spelt(token: str, byte_level: bool) -> bytes:
    if byte_level:
        letters = _letters()
        return bytes(letters[c] for c in token) if all(c in letters for c in token) else token.encode()
    if byte := _BYTE.fullmatch(token):
        return bytes([int(byte[1], 16)])
    return token.replace("▁", " ").encode()


@cache
def _letters() -> dict[str, int]:
    """Byte-level vocabularies' letters: printable bytes stand for themselves, the others for U+0100 and on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}
