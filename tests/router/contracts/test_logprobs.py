"""The likeliest tokens of an answer, kept as one text."""

from __future__ import annotations

import json

from router.contracts.logprobs import Position, packed, spelled, unpacked

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
