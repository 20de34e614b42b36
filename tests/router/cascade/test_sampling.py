"""What is asked of a student, and counted of its answer, is the same wherever it answers and whoever measures it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from distiller.data.rows import DatasetRow, row_of
from distiller.evaluation.answers import Asker
from distiller.evaluation.grading import question
from router.judges.judge import Judges
from router.policy.policy import load_policy
from tests.fakes import World, until, world

MESSAGES = [{"role": "user", "content": "which one?"}]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    audit = {"rate": 1.0, "warmup_rate": 1.0, "explore": 0, "usd_per_day": 100}
    with world(tmp_path_factory.mktemp("sampling"), audit=audit) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        yield found


def ask(proxy: World, **more: Any) -> httpx.Response:
    body = {"model": "gpt-4o", "messages": MESSAGES, **more}
    answer = httpx.post(f"{proxy.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("said", "asked"), [({}, 0), ({"temperature": None}, 0), ({"temperature": 0.7}, 0.7)])
def test_a_student_is_greedy_where_the_client_says_no_temperature(
    proxy: World, said: dict[str, Any], asked: float, stream: bool
) -> None:
    proxy.student.always(text="this one")
    answer = ask(proxy, stream=stream, **said)
    assert proxy.student.seen[-1].body["temperature"] == asked
    own = None if asked else "0"
    assert answer.headers.get("x-locum-temperature") == own
    record = proxy.record(answer.headers["x-locum-request-id"])
    assert record.answers[0].temperature == (0.0 if own else None)
    assert until(lambda: proxy.teacher.seen)[-1].body.get("temperature") == said.get("temperature")


def test_a_teachers_answer_is_drawn_as_the_client_says_and_tells_of_no_temperature(proxy: World) -> None:
    answer = httpx.post(f"{proxy.url}/v1/chat/completions", json={"model": "locum/teacher", "messages": MESSAGES})
    assert "x-locum-temperature" not in answer.headers
    assert "temperature" not in proxy.teacher.seen[-1].body


def test_several_answers_of_a_greedy_student_would_be_one_so_the_teacher_gives_them(proxy: World) -> None:
    assert ask(proxy, n=2).headers["x-locum-reason"] == "capability"
    assert ask(proxy, n=2, temperature=1.0).headers["x-locum-tier"] == "student"


def test_evaluation_asks_as_the_client_asked(proxy: World, tmp_path: Path) -> None:
    """The student that was served and the one that is measured get the same request but for its names."""
    proxy.student.always(text="this one")
    proxy.teacher.always(text="this one")
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "string"}}}
    wishes: list[dict[str, Any]] = [
        {},
        {"temperature": 0.3, "top_p": 0.9, "seed": 7, "stop": ["X"], "max_tokens": 5, "presence_penalty": 0.1},
        {"temperature": 1.2, "top_k": 4, "min_p": 0.1, "max_completion_tokens": 9, "user": "u", "metadata": {"a": "b"}},
        {"response_format": schema, "seed": 3},
    ]
    policy = load_policy(proxy.policy_file)
    for wish in wishes:
        proxy.student.always(text='"this one"' if "response_format" in wish else "this one")
        request_id = ask(proxy, **wish).headers["x-locum-request-id"]
        served = dict(proxy.student.seen[-1].body)
        record = until(lambda at=request_id: (r := proxy.record(at)).audit and r)
        row = row_of(record, policy, Judges(policy.judge))
        assert isinstance(row, DatasetRow), row
        asker = Asker(f"{proxy.student.url}/v1", "tiny", temperature=policy.student.temperature)
        asker.ask([question(row)], tmp_path / request_id)
        measured = dict(proxy.student.seen[-1].body)
        for name in ("metadata", "user"):  # they change no answer
            served.pop(name, None)
        assert measured == {"max_tokens": 256} | served  # what nobody limited is ended somewhere


END = {"embedded": None, "llama-server": "", "vllm": "<|im_end|>"}


def told(engine: str, tokens: list[str]) -> list[dict[str, Any]]:
    """The tokens' probabilities as an engine tells of them (scripted: llama-server's and vLLM's shapes)."""
    end = END[engine]
    every = [*tokens, *([] if end is None else [end])]
    return [
        {"token": t, "bytes": list(t.encode()), "logprob": -0.1 * (n + 1) if t != end else -3.0, "top_logprobs": []}
        for n, t in enumerate(every)
    ]


def whole(engine: str, tokens: list[str], finish: str) -> bytes:
    entries = told(engine, tokens) if finish == "stop" else told("embedded", tokens)
    message = {"role": "assistant", "content": "".join(tokens)}
    choice = {"index": 0, "message": message, "logprobs": {"content": entries}, "finish_reason": finish}
    usage = {"prompt_tokens": 20, "completion_tokens": len(entries), "total_tokens": 20 + len(entries)}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "tiny"}
    return orjson.dumps({**head, "choices": [choice], "usage": usage})


def streamed(engine: str, tokens: list[str], finish: str) -> bytes:
    entries = told(engine, tokens) if finish == "stop" else told("embedded", tokens)
    chunks = []
    for n, entry in enumerate(entries):
        last = n == len(entries) - 1
        text = entry["token"] if n < len(tokens) else ""
        finished = finish if last and n >= len(tokens) else None
        choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [entry]}, "finish_reason": finished}
        chunks.append({"choices": [choice]})
    if len(entries) == len(tokens):
        chunks.append({"choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}]})
    usage = {"prompt_tokens": 20, "completion_tokens": len(entries), "total_tokens": 20 + len(entries)}
    chunks.append({"choices": [], "usage": usage})
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    return b"".join(b"data: " + orjson.dumps(head | chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("tokens", [["yes"], [" card", "_", "arrival"], ["a", "\n", "b", " c", "."]])
def test_equal_probabilities_give_equal_signals_on_any_engine(
    proxy: World, tokens: list[str], finish: str, stream: bool
) -> None:
    """The end is no token of an answer, whether an engine tells of it by name, by nothing, or not at all."""
    found = []
    for engine in END:
        raw = (streamed if stream else whole)(engine, tokens, finish)
        headers = {"content-type": "text/event-stream" if stream else "application/json"}
        proxy.student.always(raw=raw, headers=headers)
        answer = ask(proxy, stream=stream, max_tokens=64, temperature=0)
        record = proxy.record(answer.headers["x-locum-request-id"])
        [said] = [a for a in record.answers if a.tier == "student"]
        found.append((said.message["content"], said.usage.output_tokens, said.signals))
        signals = said.signals
        assert signals.tokens == len(tokens) and signals.complete
        assert signals.min_logprob == pytest.approx(-0.1 * len(tokens))
    assert found[0] == found[1] == found[2]


def test_what_ends_an_answer_counts_for_nothing_in_an_evaluation_either(proxy: World, tmp_path: Path) -> None:
    values = {"request_id": "r", "conversation_id": "c", "created_at": 0.0, "messages": MESSAGES, "answer": "yes"}
    asked = [question(DatasetRow(**values, teacher="t", rights="allowed"))]  # type: ignore[arg-type]
    found = []
    for engine in END:
        proxy.student.always(raw=whole(engine, ["y", "es"], "stop"), headers={"content-type": "application/json"})
        answer = Asker(f"{proxy.student.url}/v1", "tiny").ask(asked, tmp_path / engine)["r"]
        found.append((answer.signals, answer.output_tokens))
    assert found[0] == found[1] == found[2]
    assert found[0][1] == 2
