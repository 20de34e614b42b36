"""Secrets planted in all that clients and model servers say: none is in any file of the home, the log, a metric, a
report or an error of ours, however it was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from router.cli import app
from router.store.escapes import EscapedText
from router.store.redaction import KINDS
from tests.distiller.data.test_planted import NEEDLES, PASSWORD, PLANTED
from tests.fakes import DEADLINE_SECONDS, World, world

TEACHER_KEY, CLIENT_KEY = "sk-teacher-secret", "sk-client-Ab12Cd34Ef56Gh78Ij90"
HEADERS = {"authorization": f"Bearer {CLIENT_KEY}"}
PLAIN = "\n".join([*PLANTED.values(), f"my password is {PASSWORD}"])


def escaped(text: str, times: int = 1) -> str:
    """As JSON may write it, with every sign but letters and digits as an escape, and so often again."""
    for _ in range(times):
        text = "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in text)
    return text


WRITTEN = {"plain": PLAIN, "escaped": escaped(PLAIN), "escaped twice": escaped(PLAIN, 2)}


def full_of(text: str) -> dict[str, Any]:
    """A request with it wherever a client's words can stand."""
    schema = {"type": "object", "description": text, "properties": {text: {"enum": [text], "default": text}}}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": f'{{"to": "{text!r}"}}'}}
    return {
        "model": "gpt-4o", "user": text[-120:], "stop": [PLANTED["openai"]], "safety_identifier": text,
        "prompt_cache_key": text,
        "metadata": {"task": text, text: text, "password": PASSWORD, "card": PLANTED["card"], "conversation_id": text},
        "messages": [
            {"role": "system", "content": text},
            {"role": "user", "content": [{"type": "text", "text": text}], "name": text},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": json.dumps({"said": text})},
            {"role": "user", "content": text},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": text, "parameters": schema}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "description": text, "schema": schema}},
        "x_unknown": {text: [text, 4111111111111111]},
    }  # fmt: skip


def scripts(text: str) -> Iterator[dict[str, Any]]:
    """What a model server may say with it: answers, calls, names, and failures that quote it and the key."""
    call = {
        "index": 0,
        "id": "call_2",
        "type": "function",
        "function": {"name": "f", "arguments": f'{{"a":"{text!r}"}}'},
    }
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "service_tier": PLANTED["email"]}
    yield {"text": text, "usage": usage, "extra": {"model": PLANTED["email"], "service_tier": PLANTED["email"]}}
    yield {"text": "", "message": {"tool_calls": [call], "reasoning_content": text}, "finish_reason": PLANTED["email"]}
    quoted = {"message": f"bad key {TEACHER_KEY}: {text}", "type": text, "code": text, "param": text}
    for status in (400, 401, 429, 500):
        yield {"status": status, "error": quoted, "headers": {"retry-after-ms": "1"}}
    yield {"raw": f"not json {TEACHER_KEY} {text}".encode()}


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, client_keys=(CLIENT_KEY,), log={"redact": sorted(KINDS)}, audit={"rate": 1.0}) as found:
        yield found


def found_in(text: str) -> list[str]:
    read = EscapedText(text).text
    return [needle for needle in [*NEEDLES, TEACHER_KEY, CLIENT_KEY] if needle in text or needle in read]


@pytest.mark.parametrize("written", WRITTEN)
def test_nothing_planted_is_anywhere(
    proxy: World, written: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, errors, ids = WRITTEN[written], [], list[str]()
    with httpx.Client(base_url=proxy.url, headers=HEADERS, timeout=DEADLINE_SECONDS) as client:
        for script in scripts(text):
            for upstream in (proxy.student, proxy.teacher):
                upstream.always(**script)
            for stream in (False, True):
                for tier in ("student", "teacher"):
                    body = full_of(text) | {"stream": stream}
                    answer = client.post("/v1/chat/completions", json=body, headers={"x-locum-tier": tier})
                    ids.append(answer.headers["x-locum-request-id"])
                    errors += [answer.text] if answer.status_code >= 400 else []
        asked = {"messages": full_of(text)["messages"], "model": text, "stream": 7}
        for path in ("chat/completions", "completions", "responses", "messages", "feedback", "embeddings"):
            client.post(f"/v1/{path}", json=asked | {"store": False, "request_id": text, "input": text})
        wrong = client.post("/v1/chat/completions", json={}, headers={"authorization": f"Bearer {PLANTED['openai']}"})
        kept = [proxy.record(request_id) for request_id in ids]
        told = "\n".join(client.get(path).text for path in ("/metrics", "/health/ready", "/v1/models"))
    assert len(kept) == len(ids) > 20 and wrong.status_code == 401
    assert any(record.answers and record.answers[0].message for record in kept)
    assert found_in(told) == [] and found_in(wrong.text) == []
    assert [key for key in (TEACHER_KEY, CLIENT_KEY) if any(key in error for error in errors)] == []
    monkeypatch.setenv("LOCUM_HOME", str(proxy.home))
    for command in (["status", "--policy", str(proxy.policy_file), "--json"], ["explain", ids[0]]):
        shown = CliRunner().invoke(app, command, env={"COLUMNS": "400"})
        assert found_in(shown.output) == [], command
    for stream in capfd.readouterr():
        assert found_in(stream) == []
    files = [path for path in proxy.home.rglob("*") if path.is_file()]
    assert {"records.db", "names.key"} <= {path.name for path in files}
    assert {str(path): bad for path in files if (bad := found_in(path.read_bytes().decode("latin-1")))} == {}
