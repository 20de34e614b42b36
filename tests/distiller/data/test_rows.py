"""A row carries its teacher's likeliest tokens, or none that say anything else than its answer; and calls of tools."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from distiller.data import files
from distiller.data.rows import DatasetRow, Skip, row_of
from distiller.data.selection import fault
from distiller.evaluation.grading import question
from distiller.training.batches import encode
from router.contracts.logprobs import Position, packed
from router.contracts.records import Record
from router.engine.template import PromptTemplate
from router.engine.weights import base_student
from router.judges.judge import Judges
from router.policy.policy import UnfitFor
from router.settings import Settings
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


CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]


def called(arguments: Any, name: str = "weather") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}


def with_tools(answer: dict[str, Any], finish: str = "tool_calls", **request: Any) -> Record:
    base = record(1, "and in Oslo?", "")
    said = replace(base.answers[0], message=answer, finish_reason=finish)
    return replace(base, answers=[said], request={**(base.request or {}), "tools": TOOLS, **request})


def found_in(given: Record, **student: Any) -> DatasetRow | Skip:
    asked = policy()
    part = asked.student.model_copy(update=student)
    return row_of(given, asked.model_copy(update={"student": part}), Judges(asked.judge))


def test_a_call_is_learnt_with_the_tools_that_were_offered_in_the_order_of_its_schema(tmp_path: Path) -> None:
    found = found_in(with_tools(called('{"days": 2, "city": "Oslo"}'), tool_choice="required"))
    assert isinstance(found, DatasetRow)
    assert found.calls[0]["function"] == {"name": "weather", "arguments": '{"city":"Oslo","days":2}'}
    assert (found.answer, found.tools) == ("", TOOLS) and found.options["tool_choice"] == "required"
    assert question(found).teacher == found.said and question(found).body["tools"] == TOOLS
    assert DatasetRow.from_json(found.to_json()) == found
    files.write(tmp_path / "x.parquet", [found], hashlib.sha256())
    assert files.read(tmp_path / "x.parquet") == [found]


def test_calls_and_results_within_a_prompt_are_kept() -> None:
    turns = [
        {"role": "user", "content": "and in Oslo?"},
        {**called('{"city": "Oslo"}'), "refusal": None},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "4 degrees"}]},
    ]
    found = found_in(with_tools({"role": "assistant", "content": "It is cold."}, "stop", messages=turns))
    assert isinstance(found, DatasetRow) and found.calls == []
    assert [m["role"] for m in found.messages] == ["user", "assistant", "tool"]
    assert found.messages[2] == {"role": "tool", "content": "4 degrees", "tool_call_id": "c"}
    assert "weather(" in found.prompt and "4 degrees" in found.turns[1]


@pytest.mark.parametrize(
    ("answer", "request_", "student"),
    [
        (called("{}"), {}, {"unfit_for": UnfitFor(tools=True)}),
        (called("{}"), {"tools": None, "functions": [{"name": "weather"}]}, {}),
        (called("{}"), {"tools": [{"type": "function"}]}, {}),
        (called("{}"), {"tools": [{"type": "custom", "custom": {"name": "weather"}}]}, {}),
        (called('{"city": '), {}, {}),
        (called("[]"), {}, {}),
        (called("{}") | {"function_call": {"name": "weather", "arguments": "{}"}}, {}, {}),
        ({"role": "assistant", "content": None, "tool_calls": [{"type": "custom", "custom": {}}]}, {}, {}),
    ],
)
def test_what_no_student_could_call_is_left_out_and_counted(
    answer: dict[str, Any], request_: dict[str, Any], student: dict[str, Any]
) -> None:
    assert found_in(with_tools(answer, **request_), **student) is Skip.TOOLS


def test_a_teachers_call_that_breaks_its_schema_is_not_trained_on() -> None:
    judges = Judges(policy().judge)
    assert fault(with_tools(called('{"city": "Oslo"}')), judges) is None
    for bad in (called('{"city": "Paris"}'), called("{}", name="other")):
        assert fault(with_tools(bad), judges) is Skip.BREAKS_SCHEMA


def test_a_template_whose_calls_nobody_can_read_back_costs_the_rows_with_tools_alone() -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_student("smollm2-135m-instruct", Settings.from_env().cache))
    found, plain = found_in(with_tools(called("{}"))), found_in(record(2, "a", "b"))
    assert isinstance(found, DatasetRow) and isinstance(plain, DatasetRow)
    assert found.refused_by(PromptTemplate(tokenizer)) is None
    tokenizer.chat_template += "{{ tools }}"  # it shows them, and no calls
    odd = PromptTemplate(tokenizer)
    assert found.refused_by(odd) is Skip.CALL_FORM and plain.refused_by(odd) is None
    assert encode([found, plain], odd, 100)[1] == {Skip.CALL_FORM: 1}
