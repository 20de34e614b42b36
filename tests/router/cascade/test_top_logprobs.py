"""A teacher's likeliest tokens: asked for beside what the client asked, recorded, and never shown to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import orjson
import pytest

from router.contracts.logprobs import Position, packed, unpacked
from router.contracts.records import Record
from router.errors import PolicyError
from router.policy.policy import LogPart
from router.store.record_json import kept_record
from tests.fakes import Script, World, collected, until, world

MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]
SAID = [
    Position(token, -0.01, ((token, -0.01), (b"other 1", -2.0), (b"other 2", -3.0)))
    for token in (b"hello", b" there", b" friend")
]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world"), top_logprobs=3) as found:
        yield found


@pytest.fixture
def recording(shared: World) -> World:
    """The policy asks for three likeliest tokens; the teacher is well-behaved, and was asked nothing yet."""
    shared.teacher.always()
    shared.teacher.seen.clear()
    return shared


def ask(proxy: World, **more: Any) -> tuple[bytes, str]:
    """The answer's bytes, and the request's id."""
    body = orjson.dumps({"model": "locum/teacher", "messages": MESSAGES, **more})
    request = Request(f"{proxy.url}/v1/chat/completions", body, {"content-type": "application/json"})
    with urlopen(request) as reply:
        return reply.read(), reply.headers["x-locum-request-id"]


def recorded(proxy: World, request_id: str) -> list[Position] | None:
    kept = proxy.record(request_id).answers[0].top_logprobs
    return None if kept is None else unpacked(kept)


def test_a_whole_answers_likeliest_tokens_are_recorded_and_the_client_gets_none(recording: World) -> None:
    content, request_id = ask(recording)
    sent = recording.teacher.seen[0].body
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 3)
    choice = orjson.loads(content)["choices"][0]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "hello there friend"},
        "finish_reason": "stop",
    }
    assert recorded(recording, request_id) == SAID


def test_so_are_a_streams(recording: World) -> None:
    content, request_id = ask(recording, stream=True)
    assert recording.teacher.seen[0].body["top_logprobs"] == 3
    assert b"logprob" not in content and b'"usage"' not in content
    assert content.endswith(b"data: [DONE]\n\n")
    assert collected(content).message["content"] == "hello there friend"
    assert recorded(recording, request_id) == SAID


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_gets_what_it_asked_for_itself_and_that_is_recorded(recording: World, streamed: bool) -> None:
    content, request_id = ask(recording, logprobs=True, top_logprobs=2, stream=streamed)
    assert recording.teacher.seen[0].body["top_logprobs"] == 2
    assert content.count(b'"top_logprobs"') == 3
    kept = recorded(recording, request_id)
    assert kept is not None and [p.top for p in kept] == [p.top[:2] for p in SAID]


@pytest.mark.parametrize("more", [{"tools": [TOOL]}, {"n": 2}, {"top_logprobs": 2}])
def test_nothing_is_asked_for_where_nothing_is_learned_or_the_client_says_otherwise(
    recording: World, more: dict[str, Any]
) -> None:
    _, request_id = ask(recording, **more)
    assert "logprobs" not in recording.teacher.seen[0].body
    assert recorded(recording, request_id) is None


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_without_them_reaches_the_client_byte_for_byte(recording: World, streamed: bool) -> None:
    recording.teacher.always(logprob=None, extra={"odd": 1.50})
    content, request_id = ask(recording, stream=streamed, stream_options={"include_usage": True} if streamed else None)
    recording.teacher.seen.clear()
    with urlopen(
        Request(
            f"{recording.teacher.url}/v1/chat/completions",
            orjson.dumps(
                {"model": "big", "messages": MESSAGES, "stream": streamed, "stream_options": {"include_usage": True}}
            ),
        )
    ) as direct:
        assert content == direct.read()
    assert recorded(recording, request_id) is None


def test_the_students_answers_are_left_alone(recording: World) -> None:
    _, request_id = ask(recording, model="locum/student")
    assert "top_logprobs" not in recording.student.seen[-1].body
    assert recorded(recording, request_id) is None


def test_without_the_option_nothing_is_asked_for_and_nothing_recorded(tmp_path: Path) -> None:
    with world(tmp_path) as proxy:
        _, request_id = ask(proxy)
        assert "logprobs" not in proxy.teacher.seen[0].body
        _, own = ask(proxy, logprobs=True, top_logprobs=2)
        assert (recorded(proxy, request_id), recorded(proxy, own)) == (None, None)


def refusing(status: int) -> Callable[[dict[str, Any]], Script]:
    words = {"message": "You may not request logprobs from this model", "type": "invalid_request_error"}
    return lambda body: Script(status=status, error=words) if "logprobs" in body else Script()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", [400, 403])
def test_a_teacher_that_refuses_them_is_asked_again_without_and_from_then_on(
    tmp_path: Path, status: int, streamed: bool
) -> None:
    with world(tmp_path, top_logprobs=3) as proxy:
        proxy.teacher.answer = refusing(status)
        for asked in (2, 3):
            content, request_id = ask(proxy, stream=streamed)
            assert b"hello" in content
            assert recorded(proxy, request_id) is None
            assert len(proxy.teacher.seen) == asked, "twice for the first request, once for the next"


def test_a_request_that_is_wrong_by_itself_teaches_nothing_about_the_teacher(recording: World) -> None:
    recording.teacher.always(status=400, error={"message": "too long"})
    with pytest.raises(OSError, match="400"):
        ask(recording)
    recording.teacher.always()
    _, request_id = ask(recording)
    assert recorded(recording, request_id) == SAID


def test_where_redaction_changes_the_answer_its_tokens_are_dropped_and_counted(recording: World) -> None:
    recording.teacher.always(text="write to jo@example.com please")
    _, request_id = ask(recording)
    answer = recording.record(request_id).answers[0]
    assert answer.message["content"] == "write to [EMAIL] please"
    assert answer.top_logprobs is None

    def counted() -> bool:
        with urlopen(f"{recording.url}/metrics") as reply:
            return b"locum_logprobs_dropped_total 1.0" in reply.read()

    until(counted)


def test_a_policy_that_keeps_no_text_cannot_keep_what_spells_it(tmp_path: Path) -> None:
    with (
        pytest.raises(PolicyError, match=r"need 'log\.text: true'"),
        world(tmp_path, top_logprobs=3, log={"text": False}),
    ):
        pass


@pytest.mark.parametrize("rules", [None, LogPart(text=False)])
def test_where_no_text_is_kept_no_tokens_are(make_record: Callable[..., Record], rules: LogPart | None) -> None:
    record = make_record()
    record.answers[0].top_logprobs = packed(SAID)
    unspelled: list[bool] = []
    assert "hello" not in kept_record(record, rules, lambda: unspelled.append(True))
    assert unspelled == [], "it is the policy's word, not redaction's doing"
