"""A text's token ids, by remembering what each of its words came to."""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REMEMBERED = 16_384
"""Pieces of text whose tokens are kept, at most twice: about 250 bytes each."""
LONGEST = 32
"""Characters of a piece that is kept; longer ones (a line of Chinese, a key) hardly ever come again."""
_WORDS = re.compile(r"\w+|[^\w\s]")

Ints = npt.NDArray[np.intc]


class Tokens(dict[str, bytes]):
    """The token ids of lower-case pieces of text without white space; a piece not yet known is looked up.

    Text is cut at white space here, and a piece never seen into words and signs; only a word never seen goes
    to the tokenizer. That gives the tokenizer's own tokens at a tenth of its cost, but for combining marks
    and invisible characters, which the tokenizer takes out before it cuts, and signs that are no punctuation
    (emoji, currencies), which it leaves in their word: here they stand for themselves.

    Ids are kept as the bytes of C's ints, since joining those beats collecting Python's integers by far.
    Bounded: when ``REMEMBERED`` pieces are known they become the older half, of which is forgotten what does
    not come again before the next time.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """``tokenizer``: BERT's (WordPiece on words and punctuation marks) in lower case."""
        super().__init__()
        self._tokenizer = tokenizer
        self._model = tokenizer.model
        self._older: dict[str, bytes] = {}

    def of(self, text: str) -> Ints:
        """The text's token ids, without special tokens: C's int, (n,)."""
        return np.frombuffer(self._join(text.lower().split()), np.intc)

    def _join(self, pieces: list[str]) -> bytes:
        return b"".join(map(self.__getitem__, pieces))

    def __missing__(self, piece: str) -> bytes:
        ids = self._older.get(piece)
        if ids is None:
            words = _WORDS.findall(piece)
            ids = array("i", self._learn(piece)).tobytes() if words == [piece] else self._join(words)
        if len(piece) <= LONGEST:
            if len(self) >= REMEMBERED:
                self._older = dict(self)
                self.clear()
            self[piece] = ids
        return ids

    def _learn(self, word: str) -> list[int]:
        if word.isascii() and word.isalnum():  # nothing to normalise or to cut: a fifth of the cost
            return [token.id for token in self._model.tokenize(word)]
        whole = word.encode("utf-8", "replace").decode()  # half a surrogate pair is no text to the tokenizer
        ids: list[int] = self._tokenizer.encode(whole, add_special_tokens=False).ids
        return ids
