"""The likeliest tokens of an answer, kept as one text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.contracts.logprobs import Position, packed, packed_as_told, spelled, unpacked, within_answer, without_end

HALF = "é".encode()[:1]


def test_what_was_packed_is_read_again_part_characters_too() -> None:
    positions = [
        Position(b"caf", -0.25, ((b"caf", -0.25), (b"tea", -1.5))),
        Position(HALF, -0.5, ((HALF, -0.5), (b" ", -2.0))),
        Position("é".encode()[1:], 0.0),
    ]
    text = packed(positions)
    assert unpacked(text) == positions
    assert spelled(positions) == "café".encode()
    assert json.loads(text)[1] == [[0xC3], -0.5, [[[0xC3], -0.5], [" ", -2.0]]]


def test_four_decimals_of_a_logarithm_are_kept() -> None:
    assert packed([Position(b"a", -0.123456, ((b"a", -0.123456),))]) == '[["a",-0.1235,[["a",-0.1235]]]]'


def test_what_an_api_told_is_packed_alike_and_what_is_malformed_passed_over() -> None:
    def told(token: str, logprob: Any, raw: list[int] | None, *top: Any) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": raw, "top_logprobs": list(top)}

    entries = [
        told("caf", -0.25, [99, 97, 102], told("caf", -0.25, None), told("tea", -1.5, None), {"token": "no number"}),
        told("\ufffd", -0.5, [0xC3]),  # as servers tell part of a character
        told("é", -0.75, list("é".encode())),
        told("\\xa9", -1, [0xA9]),  # as OpenAI does
        {"token": 7, "logprob": 0}, None, told("x", None, None), told("é", -1.0, [900]),
    ]  # fmt: skip
    paused: list[bool] = []
    found = unpacked(packed_as_told(entries * 20, lambda: paused.append(True)))
    assert found[:4] == [
        Position(b"caf", -0.25, ((b"caf", -0.25), (b"tea", -1.5))),
        Position(HALF, -0.5),
        Position("é".encode(), -0.75),
        Position(b"\xa9", -1.0),
    ]
    assert len(found) == 80 and len(paused) == 3


def held(token: str, itself: str) -> dict[str, Any]:
    """A token as llama-server tells it: by the text that it let go, and among the likeliest as it is."""
    return {"id": 7, "token": token, "top_logprobs": [{"id": 8, "token": "no"}, {"id": 7, "token": itself}]}


@pytest.mark.parametrize(
    ("entries", "text", "own"),
    [
        (["The", " capital"], "The capital", 2),
        (["The", " capital", ""], "The capital", 2),
        (["The", " capital", "<|im_end|>"], "The capital", 2),
        (["The", " capital"], "The ", 1),  # cut by a stop string
        (["The", " cap", "ital", " of"], "The ", 1),
        (["The", held(" ", " capital")], "The ", 1),
        (["The", held("", " capital"), held(" capital city", " city"), held("", "")], "The capital city", 3),
        (["The", held("", " cap"), held(" cap", "")], "The cap", 2),  # let go with the end
        ([""], "", 0),
    ],
)
def test_what_ended_an_answer_is_no_token_of_it(entries: list[Any], text: str, own: int) -> None:
    told = [{"token": e} if isinstance(e, str) else e for e in entries]
    assert within_answer(told, text, "stop") == own
    assert within_answer(told, text, "length") == len(told)


@pytest.mark.parametrize(
    ("tokens", "told", "beyond", "ends", "own"),
    [(9, 8, 0, 1, 8), (9, 8, 1, 1, 8), (8, 8, 1, 1, 8), (8, 8, 0, 1, 8), (18, 16, 2, 2, 16), (9, 16, 2, 2, 16),
     (24, 12, 0, 1, 24), (25, 12, 1, 1, 24), (10, 0, 0, 1, 10)],
)  # fmt: skip
def test_what_an_engine_counts_is_counted_without_it(tokens: int, told: int, beyond: int, ends: int, own: int) -> None:
    assert without_end(tokens, told, beyond, ends) == own
