"""What a student is asked, and who is asked it."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from distiller.bundles import StudentFiles
from distiller.evaluation.sources import from_log, from_path
from distiller.evaluation.subject import Subject, of_bundle, of_path
from router.errors import BundleError, DatasetError
from router.settings import Settings
from tests.distiller.tiny_student import policy, record, routing_records


def line(question: str, answer: str, **more: str) -> str:
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": said, **more}) + "\n"


def test_the_logs_newest_audits_are_asked_oldest_first_and_nothing_else() -> None:
    records = [replace(r, decision=replace(r.decision, audited=i % 2 == 0)) for i, r in enumerate(routing_records(40))]
    rows = from_log(records, policy(), 5)
    assert [r.request_id for r in rows] == [f"req-{i}" for i in (30, 32, 34, 36, 38)]


def test_an_audit_without_a_teachers_text_is_no_question() -> None:
    assert from_log([record(1, "hello", "", audited=True)], policy(), 5) == []


def test_a_file_of_questions_is_read_plain_or_zipped_with_ids_that_follow_from_its_text(tmp_path: Path) -> None:
    text = line("w1", "cards", task="intent") + "\n" + line("w2", "travel")
    plain, zipped = tmp_path / "q.jsonl", tmp_path / "q.jsonl.gz"
    plain.write_text(text)
    zipped.write_bytes(gzip.compress(text.encode()))
    rows = from_path(plain, 10)
    assert rows == from_path(zipped, 10)
    assert [(r.answer, r.task, r.messages[0]["content"]) for r in rows] == [
        ("cards", "intent", "w1"),
        ("travel", None, "w2"),
    ]
    assert len({r.request_id for r in rows}) == 2
    assert from_path(plain, 1) == rows[1:]


@pytest.mark.parametrize(
    "wrong",
    ["no json", "[]", '{"messages": "hi"}', '{"messages": [{"role": "user", "content": "no answer"}]}', "3"],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(line("w1", "cards") + wrong + "\n")
    with pytest.raises(DatasetError, match=r"q\.jsonl, line 2"):
        from_path(file, 10)


def test_what_a_bundles_student_was_trained_on_is_known_by_id(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "train.jsonl").write_text('{"request_id": "r1"}\n{"request_id": "r2"}\n')
    subject = Subject("b", policy(), StudentFiles(tmp_path), "bf16", folder=tmp_path)
    assert subject.trained_on == {"r1", "r2"} and subject.learnt == frozenset()


def test_other_weights_or_another_form_are_another_students_answers(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    first = Subject("b", policy(), StudentFiles(tmp_path), "bf16")
    key = first.key
    assert key == Subject("b", policy(), StudentFiles(tmp_path), "bf16").key
    assert key != replace(first, form_name="int8").key
    weights.write_bytes(b"other")
    assert first.key != key


def test_a_gguf_is_served_by_llama_server_whatever_the_policy(tmp_path: Path) -> None:
    file = tmp_path / "student.gguf"
    file.write_bytes(b"GGUF")
    subject = of_path(file, policy(), tmp_path, lambda what: None)
    assert (subject.policy.student.engine, subject.form.gguf, subject.on_disk) == ("llama-server", file, True)


def test_a_bundle_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no complete bundle 'x'"):
        of_bundle("x", policy(), Settings(home=tmp_path))
    assert of_bundle("base", policy(), Settings(home=tmp_path)).name == "the base student"
