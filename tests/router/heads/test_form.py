from __future__ import annotations

import json
from typing import Any

import pytest

from router.heads.answers import fields_of
from router.heads.form import AnswerForm


def form_of(*messages: dict[str, Any]) -> AnswerForm:
    return AnswerForm.of([(fields, m) for m in messages if (fields := fields_of(m))])


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def called(name: str, arguments: str) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize(
    "message",
    [
        said("card_arrival"), said("Yes.\n"), said('{"team": "billing", "urgent": false}'),
        said('{"team":"billing","tags":["a",{"b":1.0}],"none":null}'), said('{\n  "team": "Zürich"\n}'),
        called("look", '{"city": "Bern"}'), called("stop", "{}"),
    ],
)  # fmt: skip
def test_what_was_said_is_said_again_word_for_word(message: dict[str, Any]) -> None:
    fields = fields_of(message)
    assert fields is not None
    form = form_of(message)
    assert form.message(fields) == message
    assert AnswerForm.read(json.loads(json.dumps(form.plain()))).message(fields) == message


def test_of_several_spellings_the_most_frequent_one_is_used() -> None:
    form = form_of(said("yes\n"), said("yes"), said("yes"))
    assert form.message((("", "yes"),)) == said("yes")


@pytest.mark.parametrize("layout", [{}, {"separators": (",", ":")}, {"indent": 2}, {"indent": 4}])
def test_values_that_never_stood_together_are_put_into_the_teacher_s_layout(layout: dict[str, Any]) -> None:
    def of(team: str, urgent: bool, tag: str) -> str:
        return json.dumps({"team": team, "more": {"urgent": urgent, "tags": [tag]}}, ensure_ascii=False, **layout)

    form = form_of(said(of("a", True, "é")), said(of("b", False, "x")))
    fresh = fields_of(said(of("b", True, "é")))
    assert fresh is not None
    assert form.message(fresh) == said(of("b", True, "é"))


def test_a_call_s_arguments_are_put_together_too() -> None:
    form = form_of(called("look", '{"city": "Bern", "days": 1}'), called("look", '{"city": "Genf", "days": 3}'))
    fresh = fields_of(called("look", '{"city": "Bern", "days": 3}'))
    assert fresh is not None
    assert form.message(fresh) == called("look", '{"city": "Bern", "days": 3}')


def test_a_layout_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="layout"):
        AnswerForm.read({"texts": [], "pattern": None, "layout": 99})
