"""A row carries its teacher's likeliest tokens, or none that say anything else than its answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distiller.data.rows import DatasetRow, row_of
from router.contracts.logprobs import Position, packed
from router.judges.judge import Judges
from tests.distiller.tiny_student import policy, record


def row(answer: str, *tokens: bytes) -> DatasetRow:
    base = record(1, "which tool?", answer)
    told = packed([Position(t, -0.5, ((t, -0.5), (b"other", -1.0))) for t in tokens])
    found = row_of(
        replace(base, answers=[replace(base.answers[0], top_logprobs=told)]), policy(), Judges(policy().judge)
    )
    assert isinstance(found, DatasetRow)
    return found


@pytest.mark.parametrize(
    ("answer", "tokens", "kept"),
    [
        ("a café", (b"a", b" caf", "é".encode()[:1], "é".encode()[1:]), True),
        ("a café", (b"a", " café".encode(), b"<|im_end|>"), True),
        ("a café", (b"a", b" caf", "�".encode(), "�".encode()), False),
        ("a café", (b"<think>", b"a", " café".encode()), False),
        ("a café", (b"a",), False),
    ],
)
def test_tokens_are_kept_where_they_spell_the_answer_as_it_may_be_learned(
    answer: str, tokens: tuple[bytes, ...], kept: bool
) -> None:
    assert bool(row(answer, *tokens).top_logprobs) is kept


def test_they_are_written_with_the_row_and_read_back() -> None:
    found = row("a b", b"a", b" b")
    assert DatasetRow.from_json(found.to_json()) == found


def test_a_record_without_them_gives_a_row_without() -> None:
    found = row_of(record(1, "which tool?", "x"), policy(), Judges(policy().judge))
    assert isinstance(found, DatasetRow) and found.top_logprobs == ""
