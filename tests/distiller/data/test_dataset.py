"""From records to a dataset: what is kept, what is not and why, and that nothing leaks into training."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from distiller.config import DatasetConfig
from distiller.data.dataset import build, load, read
from distiller.data.files import write
from distiller.data.rows import DatasetRow, Skip, alias, row_of
from distiller.data.shingles import NearCopies, normalise
from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record, Rights, Signals
from router.engine.template import PromptTemplate, kept_template
from router.judges.judge import Judges
from tests.distiller.tiny_student import policy, record, routing_records, student

ALL_TRAIN = DatasetConfig(dev_share=0.0)


def changed(base: Record, *, request: dict[str, Any] | None = None, answer: dict[str, Any] | None = None) -> Record:
    teacher = replace(base.answers[0], **(answer or {}))
    return replace(base, request={**(base.request or {}), **(request or {})}, answers=[teacher])


def student_answer(text: str, *, complete: bool = True) -> Answer:
    signals = Signals(
        tokens=1,
        sum_logprob=-1,
        mean_logprob=-1,
        min_logprob=-1,
        first_logprob=-1,
        q10_logprob=-1,
        q25_logprob=-1,
        q50_logprob=-1,
        complete=complete,
    )
    return Answer(
        tier=Tier.STUDENT,
        kind=AnswerKind.DISCARDED,
        model="s",
        message={"role": "assistant", "content": text},
        signals=signals,
    )


def test_the_same_records_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    records = routing_records(200) + [record(i, f"new w{i}", "x", audited=True) for i in range(200, 230)]
    first = build(records, policy(), tmp_path / "a")
    random.Random(1).shuffle(records)
    second = build(iter(records), policy(), tmp_path / "b")
    assert first.sha256 == second.sha256 and first.counts == second.counts
    assert first.train.read_bytes() == second.train.read_bytes()
    assert load(tmp_path / "a") == first
    assert sorted(p.name for p in first.folder.iterdir()) == [
        "dataset.json",
        "dev.parquet",
        "holdout.parquet",
        "train.parquet",
    ]


def test_audited_records_are_the_holdout_and_nothing_like_them_is_trained_on(tmp_path: Path) -> None:
    long = "my parcel from the northern warehouse was left in the rain beside the gate number"
    near = [record(i, f"{i} unrelated {random.Random(i).random()} words", "x") for i in range(10, 60)]
    found = build(
        [
            record(1, "Where is my card?", "cards", audited=True),
            record(2, "where is  my CARD", "cards"),
            record(3, "something else", "x", conversation="conv-1"),
            record(4, f"{long} seven", "x", audited=True),
            record(5, f"{long} eleven", "x"),
            *near,
        ],
        policy(),
        tmp_path,
        ALL_TRAIN,
    )
    assert [r.request_id for r in read(found.holdout)] == ["req-1", "req-4"]
    assert {r.request_id for r in read(found.train)} == {r.request_id for r in near}
    assert found.skipped == {"holdout_prompt": 1, "holdout_conversation": 1, "near_copy_of_holdout": 1}


def test_an_audited_conversation_stays_out_even_where_its_audit_gave_no_row(tmp_path: Path) -> None:
    failed = replace(record(1, "a", "b", audited=True, conversation="c"), status=502)
    found = build([failed, record(2, "d", "e", conversation="c")], policy(), tmp_path, ALL_TRAIN)
    assert found.counts == {"train": 0, "dev": 0, "holdout": 0}
    assert found.skipped == {"failed": 1, "holdout_conversation": 1}


def test_a_shared_template_does_not_make_prompts_near_copies() -> None:
    template = "Name the intent of the customer's message, one of: " + ", ".join(f"intent {i}" for i in range(40))
    texts = [f"{template}. Message: {random.Random(i).getrandbits(200):x}" for i in range(300)]
    near = NearCopies(0.8)
    for text in texts:
        near.count(text)
    near.keep(texts[0])
    assert near.has(texts[0]) and not any(near.has(t) for t in texts[1:])
    assert near.has(texts[0][:-1] + "0")


def test_conversations_are_split_whole_and_near_the_asked_share(tmp_path: Path) -> None:
    records = [record(i, f"prompt {i}", "x", conversation=f"c{i // 3}") for i in range(1500)]
    found = build(records, policy(), tmp_path)
    train, dev = read(found.train), read(found.dev)
    assert not {r.conversation_id for r in train} & {r.conversation_id for r in dev}
    assert len(dev) / 1500 == pytest.approx(0.15, abs=0.04) and len(train) + len(dev) == 1500
    assert {r.split for r in train} == {"train"} and {r.split for r in dev} == {"dev"}


def test_what_the_students_template_refuses_is_left_out_and_still_measures(tmp_path: Path) -> None:
    folder = student(tmp_path / "student")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') if messages[0].role == 'system' }}")
    records = [record(i, f"w{i}", "x", audited=i > 4) for i in range(8)]
    for i in (0, 7):
        said = [{"role": "system", "content": "w9"}, {"role": "user", "content": f"w{i}"}]
        records[i] = changed(records[i], request={"messages": said})

    def template() -> PromptTemplate | None:
        return kept_template(str(folder), tmp_path)

    found = build(records, policy(), tmp_path / "data", ALL_TRAIN, template=template)
    assert found.counts == {"train": 4, "dev": 0, "holdout": 3} and found.skipped == {"refused_by_chat_template": 1}
    assert kept_template("no-such-student", tmp_path) is None and kept_template(str(tmp_path), tmp_path) is None


def test_of_equal_prompts_the_latest_answer_stays(tmp_path: Path) -> None:
    records = [record(1, "Hello", "old"), record(2, "hello!", "new"), record(3, "other", "x")]
    found = build(records, policy(), tmp_path, ALL_TRAIN)
    assert [r.answer for r in read(found.train)] == ["new", "x"] and found.skipped == {"duplicate": 1}


def test_answers_without_the_right_are_counted_and_never_trained_on(tmp_path: Path) -> None:
    by = policy(training_rights="unknown")
    records = [record(i, f"p{i}", "x", rights=list(Rights)[i % 3]) for i in range(300)]
    found = build(records, by, tmp_path)
    assert {r.rights for r in read(found.train)} == {"allowed"}
    assert not any(r.trainable for r in read(found.dev) if int(r.request_id[4:]) % 3)
    assert found.rights.used == {"openai/gpt-5: allowed": found.counts["train"]}
    assert found.rights.refused == {"openai/gpt-5: forbidden": 100, "openai/gpt-5: unknown": 100}


def test_an_answer_that_may_be_used_is_not_displaced_by_a_later_one_that_may_not(tmp_path: Path) -> None:
    records = [record(1, "p", "mine"), record(2, "p", "not mine", rights=Rights.FORBIDDEN, model="other")]
    found = build(records, policy(), tmp_path, ALL_TRAIN)
    assert [r.answer for r in read(found.train)] == ["mine"]


def test_personal_data_and_secrets_are_not_written(tmp_path: Path) -> None:
    told = record(1, "write to jane.doe@example.org", "sent to jane.doe@example.org")
    found = build([told], policy(), tmp_path, ALL_TRAIN)
    assert found.counts == {"train": 0, "dev": 0, "holdout": 0}
    assert found.skipped == {"changed_by_redaction": 1}
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"jane.doe" not in written and b"example.org" not in written


PREFILLED = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "{"}]


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (replace(record(1, "p", "x"), status=500), Skip.FAILED),
        (replace(record(1, "p", "x"), answers=[]), Skip.NO_TEACHER),
        (replace(record(1, "p", "x"), request=None), Skip.NO_TEXT),
        (record(1, "p", "  "), Skip.EMPTY),
        (changed(record(1, "p", "x"), answer={"message": None}), Skip.NO_TEXT),
        (changed(record(1, "p", "x"), answer={"message": {"role": "assistant", "content": None}}), Skip.EMPTY),
        (changed(record(1, "p", "x"), answer={"finish_reason": "length"}), Skip.UNFINISHED),
        (changed(record(1, "p", "x"), answer={"finish_reason": "content_filter"}), Skip.FILTERED),
        (changed(record(1, "p", "x"), answer={"finish_reason": None, "broken": True}), Skip.UNFINISHED),
        (changed(record(1, "p", "x"), answer={"finish_reason": "stop", "broken": True}), Skip.BROKEN),
        (changed(record(1, "p", "x"), answer={"finish_reason": "MAX_TOKENS"}), Skip.UNFINISHED),
        (changed(record(1, "p", "x"), answer={"finish_reason": "FinishReason.SAFETY"}), Skip.FILTERED),
        (changed(record(1, "p", "x"), answer={"finish_reason": "OTHER"}), Skip.UNKNOWN_END),
        (changed(record(1, "p", "x"), answer={"finish_reason": "TOOL_CALL"}), Skip.TOOLS),
        (record(1, "p", "half \ud83d a character"), Skip.NOT_UNICODE),
        (record(1, "half \ud83d a character", "x"), Skip.NOT_UNICODE),
        (record(1, "p", "caf\ufffd"), Skip.NOT_UNICODE),
        (changed(record(1, "p", "x"), request={"stop": ["\ud83d"]}), Skip.NOT_UNICODE),
        (record(1, "p", "<think>and then it was cut"), Skip.ONLY_THOUGHTS),
        (record(1, "p", "<think>a</think>It is 4.\n<think>or 5</think>\nIt is 5."), Skip.MIXED_THOUGHTS),
        (changed(record(1, "p", "x"), request={"messages": PREFILLED}), Skip.PREFILL),
        (changed(record(1, "p", "x"), answer={"finish_reason": "tool_calls"}), Skip.TOOLS),
        (changed(record(1, "p", "x"), request={"tools": [{"type": "function"}]}), Skip.TOOLS),
        (changed(record(1, "p", "x"), request={"n": 2}), Skip.SEVERAL),
        (
            changed(record(1, "p", "x"), request={"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            Skip.NOT_TEXT,
        ),
    ],
)
def test_what_cannot_be_learnt_from_is_skipped_for_its_reason(base: Record, reason: Skip) -> None:
    assert row_of(base, policy(), Judges(policy().judge)) is reason


@pytest.mark.parametrize("finish", ["stop", "eos", "eos_token", "end_turn", "STOP", "stop_sequence", "COMPLETE"])
def test_an_answer_that_ended_by_itself_is_learnt_whatever_that_is_called(finish: str) -> None:
    row = row_of(changed(record(1, "p", "x"), answer={"finish_reason": finish}), policy(), Judges(policy().judge))
    assert isinstance(row, DatasetRow)


@pytest.mark.parametrize(
    ("message", "answer", "rationale"),
    [
        ({"content": "<think>\n2 and 2\n</think>\n\nIt is 4."}, "It is 4.", "2 and 2"),
        ({"content": "2 and 2\n</think>\n\nIt is 4."}, "It is 4.", "2 and 2"),
        ({"content": "It is 4.", "reasoning": "2 and 2"}, "It is 4.", "2 and 2"),
        ({"content": "It is 4.", "reasoning_content": "2 and 2"}, "It is 4.", "2 and 2"),
        ({"content": "<think>b</think>It is 4.", "reasoning": "a"}, "It is 4.", "a\n\nb"),
        ({"content": "  It is 4.\n"}, "  It is 4.\n", ""),
    ],
)
def test_what_was_thought_is_rationale_and_no_part_of_the_answer(
    message: dict[str, Any], answer: str, rationale: str
) -> None:
    told = changed(record(1, "p", "x"), answer={"message": {"role": "assistant", **message}})
    row = row_of(told, policy(), Judges(policy().judge))
    assert isinstance(row, DatasetRow) and (row.answer, row.rationale) == (answer, rationale)


def test_thoughts_that_the_client_asked_to_see_are_the_answer() -> None:
    told = record(1, "Reason in <reasoning> tags, then answer.", "<reasoning>2 and 2</reasoning>\n4")
    row = row_of(told, policy(), Judges(policy().judge))
    assert isinstance(row, DatasetRow) and row.answer == "<reasoning>2 and 2</reasoning>\n4" and not row.rationale


def test_what_a_model_thought_in_an_earlier_turn_is_not_read_again() -> None:
    messages = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "<think>easy</think>\n4"},
        {"role": "user", "content": "and 3?"},
    ]
    row = row_of(changed(record(1, "p", "7"), request={"messages": messages}), policy(), Judges(policy().judge))
    assert isinstance(row, DatasetRow) and row.messages[1]["content"] == "4"


def test_parts_of_text_and_newer_role_names_become_plain_messages() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts, "name": "jo"}]
    row = row_of(changed(record(1, "p", "x"), request={"messages": messages}), policy(), Judges(policy().judge))
    assert isinstance(row, DatasetRow)
    assert row.messages == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a\nb"}]
    assert row.options == {"temperature": 0}


def test_a_row_is_written_in_the_messages_form_and_read_back(tmp_path: Path) -> None:
    row = row_of(record(1, "p", "x"), policy(), Judges(policy().judge))
    assert isinstance(row, DatasetRow)
    assert write(tmp_path / "rows.parquet", [row], hashlib.sha256()) == 1
    none = {"tool_calls": None, "tool_call_id": None}
    assert parquet.read_table(tmp_path / "rows.parquet").column("messages").to_pylist() == [
        [{"role": "user", "content": "p", **none}, {"role": "assistant", "content": "x", **none}]
    ]
    assert read(tmp_path / "rows.parquet") == [row] == [DatasetRow.from_json(row.to_json())]


def test_whether_the_student_was_right_is_known_from_audits_and_whole_discarded_answers() -> None:
    base = record(1, "p", "cards")

    def known(*extra: Answer, audit: Audit | None = None) -> bool | None:
        row = row_of(replace(base, answers=[*base.answers, *extra], audit=audit), policy(), Judges(policy().judge))
        assert isinstance(row, DatasetRow)
        return row.student_ok

    assert known() is None
    assert known(student_answer("cards")) is True
    assert known(student_answer("billing")) is False
    assert known(student_answer("billing", complete=False)) is None
    assert known(audit=Audit(answer=student_answer("billing"), acceptable=True)) is True


def test_one_user_cannot_fill_the_set_unless_alone(tmp_path: Path) -> None:
    loud = [record(i, f"p{i}", "x", user="loud") for i in range(90)]
    rest = [record(i, f"p{i}", "x", user=f"u{i}") for i in range(90, 100)]
    alone = build(loud, policy(), tmp_path / "alone", ALL_TRAIN)
    capped = build([*loud, *rest], policy(), tmp_path / "capped", ALL_TRAIN)
    assert alone.counts["train"] == 90
    users = [r.user for r in read(capped.train)]
    assert users.count(alias("loud")) == 20 and len(users) == 30 and capped.skipped == {"user_cap": 70}


def test_requests_that_name_no_user_are_not_one_user(tmp_path: Path) -> None:
    nameless = [record(i, f"p{i}", "x") for i in range(54)]
    named = [record(i, f"p{i}", "x", user=f"u{i}") for i in range(54, 60)]
    assert build([*nameless, *named], policy(), tmp_path / "no-keys", ALL_TRAIN).counts["train"] == 60
    one_key = [replace(r, owner="k1") for r in (*nameless, *named)]
    assert build(one_key, policy(), tmp_path / "one-key", ALL_TRAIN).counts["train"] == 60


def test_one_key_that_names_no_user_or_one_conversation_cannot_fill_the_set(tmp_path: Path) -> None:
    loud = [replace(record(i, f"p{i}", "x"), owner="k0") for i in range(90)]
    rest = [replace(record(i, f"p{i}", "x"), owner=f"k{i}") for i in range(90, 100)]
    keys = build([*loud, *rest], policy(), tmp_path / "keys", ALL_TRAIN)
    assert Counter(r.owner for r in read(keys.train))[alias("k0")] == 20
    talk = [record(i, f"p{i}", "x", conversation="endless") for i in range(90)]
    talks = build([*talk, *(record(i, f"p{i}", "x") for i in range(90, 100))], policy(), tmp_path / "talk", ALL_TRAIN)
    assert Counter(r.conversation_id for r in read(talks.train))[alias("endless")] == 20


def test_two_keys_users_of_one_name_are_two(tmp_path: Path) -> None:
    rows = [replace(record(i, f"p{i}", "x", user="jo"), owner=f"k{i % 10}") for i in range(100)]
    assert build(rows, policy(), tmp_path, ALL_TRAIN).counts["train"] == 100


def test_new_rows_come_first_but_old_ones_keep_their_replay(tmp_path: Path) -> None:
    old = [record(i, f"p{i}", "x") for i in range(100)]
    new = [record(i, f"p{i}", "x") for i in range(100, 200)]
    parent = build(old, policy(), tmp_path / "old", ALL_TRAIN)
    everything = build([*old, *new], policy(), tmp_path / "all", ALL_TRAIN, parent=parent.folder)
    assert (parent.new, everything.new, everything.counts["train"]) == (100, 100, 200)
    tight = DatasetConfig(dev_share=0.0, max_rows=50, replay=0.2)
    limited = build([*old, *new], policy(), tmp_path / "tight", tight, parent=parent.folder)
    assert (limited.counts["train"], limited.new) == (50, 40) and limited.skipped == {"over_max_rows": 150}


def test_normalising_keeps_words_of_any_script_and_bare_symbols_apart() -> None:
    assert normalise("  Ｗｈｅｒｅ is\nMY card?! ") == "where is my card"
    assert normalise("Где карта?") == "где карта" and normalise("??") != normalise("!!")
