"""A body is an object that nests and holds no more than can be read while others wait."""

from __future__ import annotations

import json

import pytest

from router.errors import BadRequest, TooLarge
from router.wire.body import DEEPEST, MOST_VALUES, json_object


@pytest.mark.parametrize(
    "inner",
    [
        b"[" + b"1," * 2_000_000 + b"1]",
        b"[" + b"[]," * 2 * MOST_VALUES + b"1]",
        b"[" + b'{"a":"b\\\\"},' * MOST_VALUES + b"1]",
        b"{" + b",".join(b'"k%d":"\\"[,"' % i for i in range(MOST_VALUES + 9)) + b"}",
        b"[" + b'"",' * 2 * MOST_VALUES + b"1]",
    ],
)
def test_a_body_of_too_many_values_is_not_read(inner: bytes) -> None:
    with pytest.raises(TooLarge):
        json_object(b'{"a": %b}' % inner)


@pytest.mark.parametrize(
    "text",
    [
        "a, b: [c], {d} " * 400_000,
        '{"a": "b", "c": [1, 2]}, ' * 200_000,
        '\\"quoted\\\\", ' * 300_000,
        "word " * 1_000_000,
    ],
)
def test_a_long_text_is_one_value_whatever_it_says(text: str) -> None:
    body = {"messages": [{"role": "user", "content": text}]}
    assert json_object(json.dumps(body).encode()) == body


def test_as_many_values_as_may_be_are_read() -> None:
    body = {"input": [[i] for i in range(100_000)], "more": ["a" * 20] * 50_000}
    assert json_object(json.dumps(body).encode()) == body


def test_a_body_nests_so_deep_and_no_deeper() -> None:
    assert json_object(b'{"a": ' + b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1) + b"}")
    for depth in (DEEPEST, 100_000):
        with pytest.raises(BadRequest):
            json_object(b'{"a": ' + b"[" * depth + b"]" * depth + b"}")
