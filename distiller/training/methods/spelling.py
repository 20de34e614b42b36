"""Which bytes each token of a vocabulary stands for."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


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
