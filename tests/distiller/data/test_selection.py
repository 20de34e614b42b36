"""Teacher answers that are wrong, and prompts of evaluations, are not trained on; each is counted for its reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import Table, parquet

from distiller.config import DatasetConfig
from distiller.data.dataset import Dataset, build, read
from distiller.data.evaluation_prompts import read_prompts
from distiller.data.rows import Skip
from distiller.data.selection import fault
from router.contracts.decision import Tier
from router.contracts.records import Audit, Record
from router.errors import DatasetError
from router.judges.judge import Judges
from router.policy.policy import Policy
from tests.distiller.tiny_student import policy, record

ALL_TRAIN = DatasetConfig(dev_share=0.0)
ASKED = "please tell me on which day the parcel with the blue lamp will arrive at our northern warehouse"


def judged_by(judge: dict[str, Any]) -> Policy:
    return policy().model_copy(update={"judge": Policy.model_validate(as_file() | {"judge": judge}).judge})


def as_file() -> dict[str, Any]:
    return {
        "name": "default",
        "student": {"model": "tiny", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
        "teacher": {"model": "openai/gpt-5", "training_rights": "allowed"},
        "objective": {"parity": {}},
    }


def with_schema(n: int, answer: str, schema: dict[str, Any] | None = None) -> Record:
    schema = schema or {"type": "object", "properties": {"day": {"type": "integer"}}, "required": ["day"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    base = record(n, f"on which day is it, number {n}", answer)
    return replace(base, request={**(base.request or {}), "response_format": form})


def answers(found: Dataset) -> list[str]:
    return [row.answer for row in read(found.train)]


def test_an_answer_that_breaks_the_schema_asked_for_is_out(tmp_path: Path) -> None:
    records = [
        with_schema(1, '{"day": 3}'),
        with_schema(2, '{"day": "Monday"}'),
        with_schema(3, "on Monday"),
        with_schema(4, '{"any": 1}', {"patternProperties": {"a": {}}}),  # of which nobody can tell
    ]
    found = build(records, policy(), tmp_path, ALL_TRAIN)
    assert answers(found) == ['{"day": 3}', '{"any": 1}']
    assert found.skipped == {"breaks_schema": 2}


def test_an_answer_that_a_user_disliked_is_out_unless_it_was_the_students(tmp_path: Path) -> None:
    disliked = replace(record(1, "first question", "bad"), feedback=0.0)
    students = replace(record(2, "second question", "good"), feedback=0.0, tier=Tier.STUDENT)
    liked = replace(record(3, "third question", "also good"), feedback=1.0)
    found = build([disliked, students, liked], policy(), tmp_path, ALL_TRAIN)
    assert answers(found) == ["good", "also good"] and found.skipped == {"bad_feedback": 1}


def test_a_judge_that_can_tell_without_comparing_takes_wrong_answers_out(tmp_path: Path) -> None:
    by = judged_by({"name": "labels", "labels": ["cards", "billing"]})
    records = [record(1, "first question", "cards"), record(2, "second question", "I am not sure")]
    found = build(records, by, tmp_path, ALL_TRAIN)
    assert answers(found) == ["cards"] and found.skipped == {"judged_wrong": 1}


def test_what_was_judged_wrong_at_the_time_is_out() -> None:
    base = record(1, "p", "x")
    judges = Judges(policy().judge)
    assert fault(replace(base, audit=Audit(acceptable=True, teacher_acceptable=False)), judges) is Skip.JUDGED_WRONG
    assert fault(replace(base, audit=Audit(acceptable=False)), judges) is None


def test_what_measures_stays_a_sample_of_the_traffic_wrong_answers_included(tmp_path: Path) -> None:
    disliked = replace(record(1, "first question", "bad", audited=True), feedback=0.0)
    found = build([disliked], policy(), tmp_path, ALL_TRAIN)
    assert found.counts == {"train": 0, "dev": 0, "holdout": 1} and found.skipped == {}


def test_of_answers_to_one_question_the_majority_stays(tmp_path: Path) -> None:
    records = [
        record(1, f"{ASKED} today", "Monday"),
        record(2, f"{ASKED} then", "monday."),
        record(3, f"{ASKED} now", "Friday"),
        record(4, "something else entirely", "x"),
    ]
    found = build(records, policy(), tmp_path, ALL_TRAIN)
    assert answers(found) == ["monday.", "x"]
    assert found.skipped == {"near_duplicate": 1, "outvoted_answer": 1}


def test_where_no_answer_has_a_majority_the_latest_stays_and_none_is_called_wrong(tmp_path: Path) -> None:
    said = ["Monday", "Tuesday", "Friday"]
    found = build([record(i, ASKED, said[i]) for i in range(3)], policy(), tmp_path, ALL_TRAIN)
    assert answers(found) == ["Friday"] and found.skipped == {"duplicate": 2}


def test_answers_are_the_same_where_the_policys_judge_says_so(tmp_path: Path) -> None:
    said = ["So it is 12.", "12", "The result: 12", "13", "13"]
    records = [record(i, ASKED, text) for i, text in enumerate(said)]
    by_words = build(records, policy(), tmp_path / "words", ALL_TRAIN)
    by_number = build(records, judged_by({"name": "numeric"}), tmp_path / "number", ALL_TRAIN)
    assert answers(by_words) == ["13"] and by_words.skipped == {"duplicate": 1, "outvoted_answer": 3}
    assert answers(by_number) == ["The result: 12"] and by_number.skipped == {"duplicate": 2, "outvoted_answer": 2}


def traffic() -> list[Record]:
    frame = "You sort the messages of a shop's customers. Name the team that should answer. Message:"
    others = [record(i, f"{frame} my order {i * 104729} of the item {i * 7919} is late", "x") for i in range(30)]
    return [
        *others,
        record(100, f"{frame} {ASKED}", "x"),
        record(101, f"{frame} {ASKED.replace('blue', 'green')}", "x"),
        record(102, "Where is my card?", "x"),
        record(103, "Where is my new card?", "x"),
    ]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.txt", f"{ASKED}\nwhere is my CARD\n\n"),
        ("a.jsonl", f"{json.dumps(ASKED)}\n{json.dumps({'question': 'where is my CARD'})}\n"),
        (
            "b.jsonl",
            "\n".join(
                json.dumps({"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": text}]})
                for text in (ASKED, "where is my CARD")
            ),
        ),
    ],
)
def test_evaluation_prompts_are_never_trained_on_bare_or_inside_a_template(
    tmp_path: Path, name: str, lines: str
) -> None:
    file = tmp_path / name
    file.write_text(lines)
    found = build(traffic(), policy(), tmp_path / "out", ALL_TRAIN, against=read_prompts(file))
    left = {row.request_id for row in read(found.train)}
    assert left == {f"req-{i}" for i in range(30)} | {"req-103"}
    assert found.skipped == {"evaluation_prompt": 3}


def test_evaluation_prompts_come_from_parquet_too_and_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    parquet.write_table(
        Table.from_pylist([{"prompt": "a", "gold": 1}, {"prompt": "b", "gold": 2}]), tmp_path / "p.parquet"
    )
    assert read_prompts(tmp_path / "p.parquet") == ["a", "b"]
    (tmp_path / "bad.jsonl").write_text('{"gold": 1}\n')
    with pytest.raises(DatasetError, match=r"row 1: no evaluation prompt; .* 'messages' or one of prompt"):
        read_prompts(tmp_path / "bad.jsonl")
    (tmp_path / "torn.jsonl").write_text('{"gold": \n')
    with pytest.raises(DatasetError, match="cannot be read"):
        read_prompts(tmp_path / "torn.jsonl")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_prompts(tmp_path / "missing.txt")
