"""Questions out of rows, answers out of a real HTTP server, grades by slice; nothing is asked twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from distiller.data.rows import DatasetRow
from distiller.evaluation.answers import Asker, StudentAnswer, StudentQuestion, keep_answers, read_answers
from distiller.evaluation.grading import examples, grade, live_answer, newest, outcomes, question, report
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.errors import EngineError
from router.judges.judge import Judges
from router.policy.judges import AnyJudge, Exact, Feedback, Labels, Llm
from router.policy.policy import AcceptPart


class Student(ThreadingHTTPServer):
    """A chat-completions wire that echoes the last message in capitals, and fails where it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.fail_first = 0
        self.refuse = ""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Student

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.bodies.append(body)
            failing, self.server.fail_first = self.server.fail_first > 0, self.server.fail_first - 1
        if failing:
            return self.answer(500, {"error": "boom"})
        if self.server.refuse and self.server.refuse in text:
            return self.answer(400, {"error": "too long"})
        logprobs = {"content": [{"token": "x", "logprob": -0.25}, {"token": "y", "logprob": -0.75}]}
        drawn = body.get("temperature") == 1.0 and body["seed"] % 2 == 1
        message = {"role": "assistant", "content": "another" if drawn else text.upper()}
        end = "length" if text.startswith("go on") else "stop"
        choice = {"message": message, "finish_reason": end, "logprobs": logprobs}
        return self.answer(200, {"choices": [choice], "usage": {"completion_tokens": 2}})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def student() -> Iterator[Student]:
    server = Student()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def row(n: int, text: str = "", answer: str = "", **changes: Any) -> DatasetRow:
    values: dict[str, Any] = {
        "request_id": f"r{n}",
        "conversation_id": f"c{n}",
        "created_at": float(n),
        "messages": [{"role": "user", "content": text or f"say {n}"}],
        "answer": answer or f"SAY {n}",
        "teacher": "t",
        "rights": "allowed",
    }
    return DatasetRow(**(values | changes))


def questions(n: int) -> list[StudentQuestion]:
    return [question(row(i)) for i in range(n)]


def test_every_question_is_asked_as_its_client_did_and_greedily_where_that_said_nothing(
    student: Student, tmp_path: Path
) -> None:
    asked = questions(20)
    answers = Asker(student.url, "candidate").ask(asked, tmp_path / "kept.jsonl")
    assert [answers[f"r{i}"].message["content"] for i in range(20)] == [f"SAY {i}" for i in range(20)]
    assert {(b["temperature"], b["model"], b["logprobs"]) for b in student.bodies} == {(0, "candidate", True)}
    signals = answers["r0"].signals
    assert signals is not None
    assert (signals.tokens, signals.sum_logprob, signals.complete) == (2, -1.0, True)
    assert signals.held is None and signals.agreement is None


def test_an_answer_that_nobody_limited_is_ended_and_is_not_as_good_where_it_goes_on(
    student: Student, tmp_path: Path
) -> None:
    endless = question(row(1, "go on", "GO ON", teacher_tokens=200))
    limited = question(row(2, "go on there", "GO ON THERE", options={"max_tokens": 7}))
    short, unknown = question(row(3, teacher_tokens=2)), question(row(4))
    asked = [endless, limited, short, unknown]
    answers = Asker(student.url, "candidate", in_flight=1).ask(asked, tmp_path / "kept.jsonl")
    assert [b["max_tokens"] for b in student.bodies] == [800, 7, 256, 1024]
    assert grade(asked, answers, Judges(Exact())) == {"r1": False, "r2": True, "r3": True, "r4": True}
    assert not any(a.kept_back for a in answers.values()), "served, it might have ended by itself"


def test_an_answer_that_goes_round_in_a_loop_is_kept_back_though_it_was_ended(student: Student, tmp_path: Path) -> None:
    looping = question(row(1, "go on " + "and on " * 40, teacher_tokens=200))
    answer = Asker(student.url, "candidate").ask([looping], tmp_path / "kept.jsonl")["r1"]
    assert (answer.kept_back, answer.verdict) == (True, False)


def test_the_beginning_that_a_stream_would_be_judged_by_is_kept_too(student: Student, tmp_path: Path) -> None:
    asker = Asker(student.url, "candidate", accept=AcceptPart(hold_tokens=1))
    signals = asker.ask(questions(1), tmp_path / "kept.jsonl")["r0"].signals
    assert signals is not None and signals.held is not None
    assert (signals.held.tokens, signals.held.sum_logprob, signals.held.complete) == (1, -0.25, False)
    assert read_answers(tmp_path / "kept.jsonl")["r0"].signals == signals


def test_samples_are_drawn_where_the_policy_draws_them_and_compared_with_the_answer(
    student: Student, tmp_path: Path
) -> None:
    asker = Asker(student.url, "candidate", accept=AcceptPart(samples=3))
    answers = asker.ask(questions(4), tmp_path / "kept.jsonl")
    told = {(a.signals.samples, a.signals.agreement) for a in answers.values() if a.signals}
    assert told == {(3, 2 / 3)} and len(student.bodies) == 4 * (1 + 3)
    assert answers["r0"].message["content"] == "SAY 0", "the answer itself is never a drawn one"


def test_what_was_answered_before_a_kill_is_not_asked_again(student: Student, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    Asker(student.url, "candidate").ask(questions(5), kept)
    kept.write_bytes(kept.read_bytes()[:-20])  # a kill cut the last line off
    seen: list[tuple[int, int]] = []
    answers = Asker(student.url, "candidate", on_answer=lambda *step: seen.append(step)).ask(questions(8), kept)
    assert len(answers) == 8
    assert len(student.bodies) == 5 + 4
    assert (seen[0], seen[-1]) == ((4, 8), (8, 8))
    assert len(read_answers(kept)) == 8


def test_an_engine_that_stumbles_is_asked_again_and_one_that_fails_is_an_error(
    student: Student, tmp_path: Path
) -> None:
    student.fail_first = 2
    assert len(Asker(student.url, "candidate").ask(questions(3), tmp_path / "a.jsonl")) == 3
    student.fail_first = 10**6
    with pytest.raises(EngineError, match="HTTP 500"):
        Asker(student.url, "candidate", retries=0).ask(questions(3), tmp_path / "b.jsonl")


def test_a_prompt_beyond_the_student_is_a_wrong_answer_not_a_failure(student: Student, tmp_path: Path) -> None:
    student.refuse = "say 1"
    asked = questions(3)
    answers = Asker(student.url, "candidate").ask(asked, tmp_path / "kept.jsonl")
    assert grade(asked, answers, Judges(Exact())) == {"r0": True, "r1": False, "r2": True}


def test_what_was_asked_by_another_temperature_is_asked_again(student: Student, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    Asker(student.url, "candidate").ask(questions(3), kept)
    Asker(student.url, "candidate", temperature=0.5).ask(questions(3), kept)
    assert [b["temperature"] for b in student.bodies] == [0.0] * 3 + [0.5] * 3
    assert len(read_answers(kept, 0.5)) == 3 and not read_answers(kept, 0.7)
    wish = {"temperature": 0.9, "seed": 4, "max_completion_tokens": 24}
    Asker(student.url, "candidate").ask([question(row(9, options=wish))], kept)
    asked = student.bodies[-1]
    assert (asked["temperature"], asked["seed"], asked["max_tokens"]) == (0.9, 4, 24)


def test_a_question_is_all_that_shapes_an_answer() -> None:
    asked = {"response_format": {"type": "json_object"}, "temperature": 1.0, "seed": 2, "stop": ["x"]}
    assert question(row(1, options=asked)).body == {"messages": [{"role": "user", "content": "say 1"}], **asked}


def test_slices_are_the_task_and_the_length_of_the_prompt() -> None:
    assert question(row(1, task="intent")).slices == ("task=intent", "length=short")
    assert question(row(1, text="word " * 300)).slices == ("length=medium",)
    assert question(row(1, text="word " * 3000)).slices == ("length=long",)


def test_the_newest_rows_are_asked_where_there_are_too_many() -> None:
    rows = [row(i) for i in (3, 1, 2, 0)]
    assert [r.request_id for r in newest(rows, 2)] == ["r2", "r3"]
    assert newest(rows, 0) == []


def audited(answer: Answer | None, drawn: bool = True) -> Record:
    decision = Decision(tier=Tier.TEACHER, reason=Reason.COLD_START, propensity=0.2, audited=drawn)
    return Record(
        request_id="r1",
        conversation_id="c",
        created_at=1.0,
        policy="p",
        policy_version="v",
        features_version="1",
        decision=decision,
        reason=Reason.COLD_START,
        audit=Audit(answer=answer),
    )


def student_answer(**changes: Any) -> Answer:
    values = {
        "tier": Tier.STUDENT,
        "kind": AnswerKind.AUDITED,
        "model": "s",
        "message": {"role": "assistant", "content": "hi"},
        "finish_reason": "stop",
        "student_version": "b1",
        "temperature": 0.0,
    }
    return Answer(**(values | changes))


def test_live_answers_count_only_for_the_student_that_gave_them_whole_and_only_where_audited() -> None:
    same = frozenset({"b1", "b2"})
    found = live_answer(audited(student_answer()), same, 0.0)
    assert found is not None
    assert found.message["content"] == "hi"
    assert live_answer(audited(student_answer(student_version="b9")), same, 0.0) is None
    assert live_answer(audited(student_answer(finish_reason=None)), same, 0.0) is None
    assert live_answer(audited(student_answer(), drawn=False), same, 0.0) is None
    assert live_answer(audited(None), same, 0.0) is None
    assert live_answer(audited(student_answer()), same, 0.7) is None, "it would not be asked so now"
    assert live_answer(audited(student_answer(temperature=None)), same, 0.0) is None, "nobody knows how it was asked"


@pytest.mark.parametrize(
    ("by", "today", "kept"),
    [
        ("a person", Exact(), True),
        ("feedback", Exact(), True),
        ("exact", Exact(), False),
        ("llm:m", Exact(), False),
        ("llm:m", Llm(model="m"), True),
        ("llm:other", Llm(model="m"), None),
        ("feedback, else llm:m", Feedback(otherwise=Llm(model="m")), True),
    ],
)
def test_a_persons_verdict_is_kept_and_a_judges_where_asking_it_again_would_cost(
    by: str, today: AnyJudge, kept: bool | None
) -> None:
    """The audit found the answer acceptable; to be exact it is not the teacher's."""
    asked = question(row(1))
    record = audited(student_answer())
    record.audit = Audit(answer=student_answer(), acceptable=True, judge=by)
    answer = live_answer(record, frozenset({"b1"}), 0.0)
    assert answer is not None
    assert grade([asked], {"r1": answer}, Judges(today)) == ({} if kept is None else {"r1": kept})


def test_labels_are_learned_from_all_questions_before_any_answer_is_graded() -> None:
    asked = [question(row(1, answer="refund")), question(row(2, answer="card"))]
    answers = {n: StudentAnswer(request_id=n, message={"content": "card or refund"}) for n in ("r1", "r2")}
    assert grade(asked, answers, Judges(Labels())) == {"r1": False, "r2": False}


@pytest.mark.parametrize(
    ("asked", "answer", "grade", "student", "teacher"),
    [
        ({}, {}, True, None, None),
        ({"teacher_right": True}, {}, True, True, True),
        ({"teacher_right": True}, {}, False, False, True),
        ({"teacher_right": False}, {}, True, None, False),
        ({"teacher_right": True}, {"right": False, "teacher_right": False}, True, False, False),
        ({}, {"right": True}, True, True, None),
    ],
)
def test_the_scorer_learns_who_was_right_where_somebody_could_tell(
    asked: dict[str, Any], answer: dict[str, Any], grade: bool, student: bool | None, teacher: bool | None
) -> None:
    answers = {"r1": StudentAnswer(request_id="r1", message={}, **answer)}
    [made] = examples([question(row(1, **asked))], answers, {"r1": grade})
    assert (made.acceptable, made.student, made.teacher, made.request_id) == (grade, student, teacher, "r1")


def test_a_live_answer_brings_what_its_audit_and_its_user_knew() -> None:
    record = audited(student_answer())
    record.audit = Audit(answer=student_answer(), acceptable=False, teacher_acceptable=True)
    found = live_answer(record, frozenset({"b1"}), 0.0)
    assert found is not None and (found.right, found.teacher_right) == (False, True)


def test_the_report_counts_by_slice_and_rows_pair_both_students() -> None:
    asked = [question(row(i, task="even" if i % 2 == 0 else "odd"), weight=1 + i) for i in range(4)]
    answers = {q.request_id: StudentAnswer(request_id=q.request_id, message={}, seconds=1.0) for q in asked}
    grades = {"r0": True, "r1": False, "r2": True, "r3": True}
    told = report(asked, answers, grades)
    assert (told["n"], told["acceptable_rate"]) == (4, 0.75)
    assert told["slices"]["task=odd"] == {"n": 2, "acceptable_rate": 0.5}
    assert [e.weight for e in examples(asked, answers, grades)] == [1, 2, 3, 4]
    pairs = outcomes(asked, grades, {"r0": False})
    assert [(p.candidate, p.incumbent) for p in pairs[:2]] == [(True, False), (False, None)]


def test_answers_survive_being_kept(tmp_path: Path) -> None:
    answer = StudentAnswer(request_id="r", message={"role": "assistant", "content": "ünïcode\n"}, seconds=0.5)
    keep_answers(tmp_path / "deep" / "kept.jsonl", [answer])
    assert read_answers(tmp_path / "deep" / "kept.jsonl") == {"r": answer}
    assert read_answers(tmp_path / "missing.jsonl") == {}
