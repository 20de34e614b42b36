"""JSON that a strict parser refuses, and what is made of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from router.wire.json_text import BOM, LONGEST_LENIENT_BYTES, loads


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a":NaN,"b":Infinity,"c":-Infinity,"d":-1.5}', {"a": None, "b": None, "c": None, "d": -1.5}),
        (b"[1e999, -1e999, 1e-999]", [None, None, 0.0]),
        (b"[NaN, 18446744073709551616, " + b"9" * 400 + b"]", [None, 2.0**64, None]),
        (b'["\\ud83d\\ude00", NaN]', ["\U0001f600", None]),
        (b'["\\\\ud83d", NaN]', ["\\ud83d", None]),
        (b'"one\ttwo"', "one\ttwo"),
        (BOM + b'{"a":1}', {"a": 1}),
    ],
)
def test_what_says_no_number_says_nothing_and_the_rest_is_read(text: bytes, value: Any) -> None:
    found, whole = loads(text)
    assert (found, whole) == (value, True)
    orjson.dumps(found)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"a \\ud83d dog"', "a \ufffd dog"),
        (b'"\\ude00"', "\ufffd"),
        (b'{"\\uD83D": "\\ud83d\\u0041"}', {"\ufffd": "\ufffdA"}),
        (b'"\xff"', "\ufffd"),
        (b'"\\\\\\ud83d"', "\\\ufffd"),
    ],
)
def test_lost_characters_are_replaced_and_told(text: bytes, value: Any) -> None:
    assert loads(text) == (value, False)
    orjson.dumps(loads(text)[0])


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b'{"a":NaN', b"[NaN]]", b"[" * 10**5, b"[NaN," * 10**5, b"[NaN" + b" " * LONGEST_LENIENT_BYTES + b"]"],
)
def test_what_is_no_json_by_any_reading_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)
