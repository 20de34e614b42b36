"""Texts as they read, and where what is read was written."""

from __future__ import annotations

import json
from random import Random

import pytest

from router.store import escapes
from router.store.escapes import EscapedText

PARTS = ("a", "é", "\\", "\\\\", "u0040", "\\u0040", "\\n", '"', "%", "%40", "%2540", "4", " ")


def texts() -> list[str]:
    rng = Random(1)
    drawn = ["".join(rng.choices(PARTS, k=rng.randrange(60))) for _ in range(2000)]
    return [*drawn, "\\" * 100, "\\" * 99 + "n", "%40" * 50, ""]


def test_a_piece_ends_no_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [EscapedText(text).text for text in texts()]
    for size in (7, 8, 13, 40):
        monkeypatch.setattr(escapes, "PIECE_CHARS", size)
        assert [EscapedText(text).text for text in texts()] == whole


def test_what_is_read_is_what_was_written_however_often_it_was_escaped() -> None:
    said = 'write to "ann@example.org"\n, or to zoë'
    written = said
    for _ in range(4):
        written = json.dumps(written)[1:-1]
    read = EscapedText(written)
    assert read.text == said
    start = said.index("ann")
    assert written[slice(*read.span(start, start + len("ann@example.org")))] == "ann@example.org"


@pytest.mark.parametrize("text", ["", "plain", "100%", "C:" + "\\" * 3 + "x"])
def test_a_text_without_any_says_so(text: str) -> None:
    assert not EscapedText(text)
    assert EscapedText(text).text == text
