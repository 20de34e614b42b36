"""What each judge finds acceptable, who judges which task, and users' own judges by entry point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from router.errors import JudgeError, PolicyError
from router.judges.base import Means
from router.judges.judge import JUDGES, Judges
from router.judges.labels import SETTLED
from router.judges.pair import Pair, Verdict
from router.policy.judges import NAMES, AnyJudge, Judge, Llm, by_judge
from router.policy.policy import Policy


def spec(value: Any) -> AnyJudge:
    found: AnyJudge = TypeAdapter(Judge).validate_python(value)
    return found


def said(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def called(*calls: tuple[str, str]) -> dict[str, Any]:
    tools = [{"id": f"c{i}", "function": {"name": n, "arguments": a}} for i, (n, a) in enumerate(calls)]
    return {"role": "assistant", "content": None, "tool_calls": tools}


def asks_for(schema: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [], "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}


def verdict(judge: Any, student: Any, teacher: Any, request: Any = None, task: str | None = None) -> Verdict:
    messages = [m if isinstance(m, dict) else said(m) for m in (student, teacher)]
    found = Judges(spec(judge)).now(Pair(messages[0], messages[1], request, task))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("judge", "student", "teacher", "acceptable"),
    [
        ("exact", "Yes", "Yes", True),
        ("exact", "yes", "Yes", False),
        ("normalised", " Card  Arrival.\n", '"card arrival"', True),
        ("normalised", "```\ncard_arrival\n```", "card_arrival", True),
        ("normalised", "**Straße**", "STRASSE", True),
        ("normalised", "card_arrival", "card_linking", False),
        ("normalised", "not ok", "ok", False),
        ("normalised", "", "", False),
        ("normalised", "```" + " \n" * 100_000 + "x", "y", False),
        ("normalised", "```text\na\n\n ```  ", "a", True),
        ("json", '```json\n{"b": [1, 2.0], "a": null}\n```', '{"a": null, "b": [1.0, 2]}', True),
        ("json", '{"a": [2, 1]}', '{"a": [1, 2]}', False),
        ("json", '{"a": true}', '{"a": 1}', False),
        ("json", '{"a": 1, "b": 2}', '{"a": 1}', False),
        ("json", '{"a": 1', '{"a": 1}', False),
        ("json", "no json", "no json", False),
        ("json", "null", "null", True),
        ("json", "1e300", "1E300", True),
        ({"name": "json", "arrays": "set"}, '{"a": [2, {"b": [1, 3]}]}', '{"a": [{"b": [3, 1]}, 2.0]}', True),
        ({"name": "json", "arrays": "set"}, "[1, 1, 2]", "[1, 2, 2]", False),
        ("numeric", "So it is $1,234.50.", "#### 1234.5", True),
        ("numeric", "x = -3", "3", False),
        ("numeric", "10-3", "3", True),
        ("numeric", "2 and then 4", "the answer is 4", True),
        ("numeric", "none", "none", False),
        ("tool_calls", "some words", "other words", True),
    ],
)
def test_texts_numbers_and_values_are_compared(judge: Any, student: str, teacher: str, acceptable: bool) -> None:
    assert verdict(judge, student, teacher).acceptable is acceptable


TAGS = {
    "type": "object",
    "required": ["tags", "steps"],
    "properties": {
        "tags": {"type": "array", "uniqueItems": True, "items": {"$ref": "#/$defs/tag"}},
        "steps": {"type": "array"},
    },
    "$defs": {"tag": {"type": "object", "properties": {"of": {"type": "array", "uniqueItems": True}}}},
}


@pytest.mark.parametrize(
    ("student", "teacher", "acceptable", "teacher_acceptable"),
    [
        (
            '{"tags": [{"of": [2, 1]}, {}], "steps": [1, 2]}',
            '{"steps": [1, 2], "tags": [{}, {"of": [1, 2]}]}',
            True,
            None,
        ),
        ('{"tags": [], "steps": [2, 1]}', '{"tags": [], "steps": [1, 2]}', False, None),
        ('{"tags": []}', '{"tags": [], "steps": []}', False, None),
        ("words", '{"tags": [], "steps": []}', False, None),
        ('{"tags": []}', '{"tags": []}', False, False),
        ('{"tags": [], "steps": []}', "words", False, False),
    ],
)
def test_json_goes_by_the_schema_that_the_client_asked_for(
    student: str, teacher: str, acceptable: bool, teacher_acceptable: bool | None
) -> None:
    found = verdict("json", student, teacher, asks_for(TAGS))
    assert (found.acceptable, found.teacher_acceptable) == (acceptable, teacher_acceptable)


@pytest.mark.parametrize(
    ("judge", "student", "teacher", "right"),
    [
        ("json", "words", '{"tags": [], "steps": []}', False),
        ("json", '{"tags": []}', "words", False),
        ("json", '{"tags": [], "steps": []}', '{"tags": [], "steps": [1]}', None),
        ({"name": "labels", "labels": ["card", "refund"]}, "card or refund", "card", False),
        ({"name": "labels", "labels": ["card", "refund"]}, "none", "I cannot tell", False),
        ({"name": "labels", "labels": ["card", "refund"]}, "refund", "card", None),
        ("labels", "none of them", "card", None),
        ("exact", "a", "b", None),
    ],
)
def test_a_student_that_breaks_the_asked_form_is_wrong_whatever_the_teacher_said(
    judge: Any, student: str, teacher: str, right: bool | None
) -> None:
    request = asks_for(TAGS) if judge == "json" else None
    assert verdict(judge, student, teacher, request).student_acceptable is right


def test_text_in_parts_is_joined() -> None:
    parts = said([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    assert verdict("exact", parts, "ab").acceptable


@pytest.mark.parametrize("judge", ["exact", "normalised", "json", "numeric", "tool_calls", "labels", "semantic"])
def test_tool_calls_are_compared_by_name_and_arguments_whoever_judges(judge: str) -> None:
    teacher = called(("find", '{"a": 1, "b": 2}'), ("book", "{}"))
    assert verdict(judge, called(("book", ""), ("find", '{"b":2.0,"a":1}')), teacher).acceptable
    assert not verdict(judge, called(("book", "{}"), ("find", '{"a": true, "b": 2}')), teacher).acceptable
    assert not verdict(judge, "I'd call find", teacher).acceptable
    assert not verdict(judge, called(("find", "{}")), "hello").acceptable
    assert verdict(judge, called(("f", "not json")), called(("f", "not json"))).acceptable


def test_what_is_nested_without_end_has_no_verdict() -> None:
    deep = "[" * 900 + "]" * 900
    assert verdict("json", deep, deep).acceptable is None
    assert verdict("exact", called(("f", deep)), called(("f", deep))).acceptable is None


LABELS = {"name": "labels", "labels": ["card", "card arrival", "refund", "C++"]}


@pytest.mark.parametrize(
    ("student", "teacher", "acceptable", "teacher_acceptable"),
    [
        ("The intent is card_arrival.", "card arrival", True, None),
        ("Card-Arrival", "card_arrival", True, None),
        ("card", "card arrival", False, None),
        ("card arrival or refund", "card arrival", False, None),
        ("refund, a refund", "**Refund**", True, None),
        ("refunded", "refund", False, None),
        ("none of them", "refund", False, None),
        ("c++", "C++", True, None),
        ("refund", "I cannot tell", None, False),
        ("refund", "card or refund", None, False),
    ],
)
def test_exactly_one_label_must_be_found_and_be_the_teachers(
    student: str, teacher: str, acceptable: bool | None, teacher_acceptable: bool | None
) -> None:
    found = verdict(LABELS, student, teacher)
    assert (found.acceptable, found.teacher_acceptable) == (acceptable, teacher_acceptable)


def test_labels_that_the_policy_does_not_list_are_learned_from_the_teachers_answers() -> None:
    judges = Judges(spec("labels"))
    unsure = Pair(said("card arrival, or a refund"), said("card_arrival"))
    assert judges.now(unsure) == Verdict(True)  # that a refund is a label too nobody knows yet
    judges.learn(None, said("Refund"))
    assert judges.now(unsure) == Verdict(False)
    prose = said("I would say that this is about a card, and about how long it takes until that card arrives.")
    assert judges.now(Pair(said("card arrival"), prose)) == Verdict(None)


class Axes:
    """One axis a word."""

    def encode(self, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        found = np.array([w in text for w in ("cat", "dog", "bird")], np.float32)
        norm = np.linalg.norm(found)
        return found / norm if norm else found


@pytest.mark.parametrize(
    ("at_least", "student", "acceptable"),
    [(0.7, "a dog", True), (0.8, "a dog", False), (0.99, "dog and cat", True), (0.1, "bird", False), (0.1, "", False)],
)
async def test_meaning_is_compared_by_the_encoder(at_least: float, student: str, acceptable: bool) -> None:
    judges = Judges(spec({"name": "semantic", "at_least": at_least}), Means(encoder=Axes))
    assert (await judges.verdict(Pair(said(student), said("cat and dog")))).acceptable is acceptable


async def test_without_an_encoder_meaning_cannot_be_judged() -> None:
    with pytest.raises(JudgeError, match="no encoder"):
        await Judges(spec("semantic")).verdict(Pair(said("a"), said("b")))


def test_feedback_is_judged_by_another_until_users_speak() -> None:
    judges = Judges(spec({"name": "feedback", "otherwise": "numeric"}))
    assert judges.label(None) == "feedback, else numeric"
    assert judges.now(Pair(said("so 4"), said("4"))) == Verdict(True)


def test_a_task_may_have_a_judge_of_its_own() -> None:
    judge = {"name": "llm", "model": "openai/gpt-5-mini", "tasks": {"intent": LABELS, "sum": "numeric"}}
    assert verdict(judge, "it is 4", "4", task="sum").acceptable
    judges = Judges(spec(judge))
    assert [judges.label(t) for t in (None, "other", "sum")] == ["llm:openai/gpt-5-mini"] * 2 + ["numeric"]
    assert [judges.paid(t) for t in (None, "sum")] == [True, False]
    assert [judges.immediate(t) for t in (None, "sum")] == [False, True]


def test_learned_labels_are_all_there_are_once_nothing_new_is_said_for_long() -> None:
    """And no longer where something is; a judgement is no second sight of the same answer."""
    judges, names = Judges(spec("labels")), ["Refund", "lost card", "card_arrival"]
    for n in range(SETTLED + 2):
        assert not judges.form({}, None).closed
        judges.learn(None, said(names[n % 3]))
        judges.now(Pair(said("refund"), said(names[n % 3]), {}))
    judges.learn(None, said("refund"))
    outside = judges.form({}, None).outside
    assert outside is not None
    assert not outside(said("Lost card.")) and not outside(said("The label is: refund"))
    assert outside(said("card_delivery")) and outside(said("refund or lost card")) and outside(said(""))
    found = judges.now(Pair(said("card_delivery"), said("refund"), {}))
    assert found is not None and (found.acceptable, found.student_acceptable) == (False, None)
    judges.now(Pair(said("card_delivery"), said("card_delivery"), {}))  # so there is such a label
    assert not judges.form({}, None).closed
    for answer in ("word " * 40, ""):  # no label at all
        for _ in range(SETTLED):
            judges.learn(None, said("refund"))
        assert judges.form({}, None).closed
        judges.learn(None, said(answer))
        assert not judges.form({}, None).closed


def test_tasks_learn_their_labels_apart() -> None:
    judges = Judges(spec({"name": "labels", "tasks": {"own": "labels"}}))
    judges.learn("own", said("refund"))
    unsure = "arrival or refund"
    assert judges.now(Pair(said(unsure), said("arrival"), task="own")) == Verdict(False)
    assert judges.now(Pair(said(unsure), said("arrival"), task="no own")) == Verdict(True)


OWN = """
from router.judges.pair import Verdict
GOLD = {"q1": "4"}
def gold(pair):
    if pair.request_id not in GOLD:
        return None
    right = [m["content"] == GOLD[pair.request_id] for m in (pair.student, pair.teacher)]
    return Verdict(right[0] or not right[1], teacher_acceptable=right[1], student_acceptable=right[0])
def plain(pair): return len(pair.student["content"]) > 3
def broken(pair): raise RuntimeError("sk-secret")
def odd(pair): return "yes"
nothing = 3
"""


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[None]:
    """A distribution with judges of its own, as pip leaves it."""
    (tmp_path / "own_judges_of_a_test.py").write_text(OWN)
    folder = tmp_path / "own_judges-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: own-judges\nVersion: 1.0\n")
    names = ("gold", "plain", "broken", "odd", "nothing", "gone")
    lines = [f"{name} = own_judges_of_a_test:{name}" for name in names]
    (folder / "entry_points.txt").write_text("[locum.judges]\n" + "\n".join(lines) + "\n")
    sys.path.insert(0, str(tmp_path))
    yield
    sys.path.remove(str(tmp_path))
    sys.modules.pop("own_judges_of_a_test", None)


def own(name: str) -> Judges:
    return Judges(spec({"name": "callable", "entry_point": name}))


@pytest.mark.usefixtures("installed")
async def test_a_users_own_judge_may_know_what_is_right() -> None:
    async def gold(student: str, teacher: str, request_id: str = "q1") -> Verdict:
        return await own("gold").verdict(Pair(said(student), said(teacher), request_id=request_id))

    assert await gold("4", "5") == Verdict(True, teacher_acceptable=False, student_acceptable=True)
    assert await gold("5", "4") == Verdict(False, teacher_acceptable=True, student_acceptable=False)
    assert await gold("4", "4", "q2") == Verdict(None)
    assert await own("plain").verdict(Pair(said("long"), said(""))) == Verdict(True)
    assert own("plain").label(None) == "callable:plain"


@pytest.mark.usefixtures("installed")
async def test_a_users_own_judge_that_breaks_costs_one_verdict_and_tells_no_secret() -> None:
    with pytest.raises(JudgeError, match=r"'broken' raised RuntimeError$"):
        await own("broken").verdict(Pair(said("a"), said("b")))
    with pytest.raises(JudgeError, match="'odd' gave a str"):
        await own("odd").verdict(Pair(said("a"), said("b")))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "why"),
    [("absent", "installed there: .*gold"), ("gone", "cannot be imported"), ("nothing", "cannot be called")],
)
def test_a_judge_that_is_not_there_is_an_error_of_the_policy(name: str, why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        own(name)


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        ("kind", "'exact', 'normalised'"),
        ("llm", "model"),
        ({"name": "exact", "labels": ["a"]}, "labels"),
        ({"name": "exact", "tasks": {"a": {"name": "exact", "tasks": {"b": "json"}}}}, "tasks of its own"),
        ({"name": "feedback", "otherwise": "feedback"}, "not feedback"),
        ({"name": "semantic", "at_least": 2}, "at_least"),
        ({"name": "labels", "labels": [True, False]}, "in quotes"),
    ],
)
def test_a_wrong_judge_is_told_in_words(judge: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        spec(judge)


def test_the_short_form_and_the_long_one_mean_the_same() -> None:
    values = {
        "name": "p",
        "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
        "teacher": {"model": "t"},
        "objective": {"parity": {}},
    }
    short, long = (Policy.model_validate(values | {"judge": j}) for j in ("json", {"name": "json"}))
    assert short == long
    assert Policy.model_validate(values).judge.name == "normalised"
    assert Policy.model_validate_json(short.model_dump_json()) == short


def test_a_verdict_of_ours_is_told_from_a_persons() -> None:
    ours = [*(NAMES - {"feedback"}), Llm(model="m:1").label, "callable:gold", "feedback, else llm:m"]
    assert all(map(by_judge, ours))
    assert not any(map(by_judge, ["feedback", "a person", "recorded correctness", None]))


def test_every_judge_that_a_policy_may_name_has_a_row() -> None:
    assert {*JUDGES, "feedback"} == NAMES
