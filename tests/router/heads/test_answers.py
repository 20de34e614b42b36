from __future__ import annotations

from typing import Any

import pytest

from router.heads.answers import LONGEST, AnswerSet, fields_of


def called(*calls: tuple[str, str], content: Any = None) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"id": "x", "type": "function", "function": {"name": n, "arguments": a}} for n, a in calls],
    }


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ({"content": " yes\n"}, (("", "yes"),)),
        ({"content": '{"b": 1, "a": {"c": "x", "d": [true, null]}}'},
         (("a.c", '"x"'), ("a.d.0", "true"), ("a.d.1", "null"), ("b", "1"))),
        ({"content": '{"a":\n 1}'}, (("a", "1"),)),
        ({"content": "{}"}, (("", "{}"),)),
        ({"content": "{not json"}, (("", "{not json"),)),
        (called(("look", '{"city": "Bern"}')), (("arguments.city", '"Bern"'), ("tool", "look"))),
        (called(("look", "")), (("arguments", "{}"), ("tool", "look"))),
        ({"content": ""}, None), ({"content": None}, None), ({"content": "x" * (LONGEST + 1)}, None), ({}, None),
        ({"content": [{"type": "text", "text": "yes"}]}, None),
        (called(("a", "{}"), ("b", "{}")), None), (called(("a", "{}"), content="So:"), None),
        (called(("a", "{broken")), None),
        ({"content": "[" + ",".join(map(str, range(99))) + "]"}, None),
    ],
)  # fmt: skip
def test_answers_are_taken_apart(message: dict[str, Any], fields: Any) -> None:
    assert fields_of(message) == fields


def test_json_is_the_same_however_it_is_laid_out() -> None:
    assert fields_of({"content": '{"a":1,"b":2}'}) == fields_of({"content": '{ "b": 2,\n"a": 1 }'})


def test_good_and_turing_count_what_was_there_once() -> None:
    label = (("", "a"),)
    found = AnswerSet.of([label, label, (("", "b"),), None])
    assert (found.answers, found.open, found.distinct, found.unseen) == (4, 1, 2, 0.5)
    assert found.times[0] == (label, 2)
    assert AnswerSet.of([]).unseen == 1.0
