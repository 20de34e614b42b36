"""Equal weights give equal signals, whichever engine serves them: what ended an answer is no token of it on any.

Live where llama-server was built, and everywhere from what it said once (``pairs`` records it anew).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from distiller.data.rows import DatasetRow
from distiller.evaluation.answers import Asker
from distiller.evaluation.grading import question
from router.contracts.records import Signals
from router.errors import EngineError
from router.settings import Settings
from router.wire.sse import entries_of
from tests.fakes import World, collected, until, world
from tests.router.engine.pairs import CASES, body_of, both, recorded

GOLDEN = Path(__file__).parents[2] / "golden" / "engines.json"
CLOSE = 0.02
"""How far a logarithm may lie from the other engine's: float32 on both sides, and llama.cpp's keys in 16 bits."""
ROUNDED = 0.2
"""The same of weights of eight bits: llama.cpp rounds what it multiplies with them to eight bits too."""
NEAR_TIES = {"characters of several tokens"}
"""Where that much makes for other words."""
UNTOLD = {("characters of several tokens", False), ("characters of several tokens", True),
          ("a stop string that only begins", True)}  # fmt: skip
"""Where llama-server does not tell of every token: of a character's only its last, and in a stream none of those that
it held back for a stop string."""
LEFT = ("a stop string within a token", True)
"""Where the client has its beginning, and so the token, before the stop string shows."""
SEVERAL = "several"
OWN_FORM = "a form"
"""Its grammar is another than ours, so it comes to other words."""


@dataclass(frozen=True)
class Read:
    """What was read of an answer: by the proxy for its record, and by the client."""

    text: str
    finish_reason: str | None
    output_tokens: int
    signals: Signals
    told: int
    counted: int


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("engines")) as found:
        until(lambda: httpx.get(f"{found.url}/health/ready").json()["policies"][0]["student"]["ready"])
        yield found


def read(proxy: World, case: str, stream: bool, said: str) -> Read:
    kind = "text/event-stream" if stream else "application/json"
    proxy.student.always(raw=said.encode(), headers={"content-type": kind})
    answer = httpx.post(f"{proxy.url}/v1/chat/completions", json=body_of(case, stream=stream) | {"model": "gpt-4o"})
    assert answer.status_code == 200, answer.text
    [kept] = [a for a in proxy.record(answer.headers["x-locum-request-id"]).answers if a.tier == "student"]
    if stream:
        whole = collected(answer.content)
        told, usage = len(whole.logprobs), whole.usage_told
    else:
        told, usage = len(entries_of(answer.json()["choices"][0])), answer.json()["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    text = kept.message["content"]
    return Read(text, kept.finish_reason, kept.usage.output_tokens, kept.signals, told, usage["completion_tokens"])


def measured(proxy: World, said: str, case: str, folder: Path) -> Signals | None:
    """What an evaluation reads of the same answer."""
    proxy.student.always(raw=said.encode(), headers={"content-type": "application/json"})
    values = {"request_id": "r", "conversation_id": "c", "created_at": 0.0, "messages": CASES[case]["messages"]}
    row = DatasetRow(**values, answer="yes", teacher="t", rights="allowed")  # type: ignore[arg-type]
    asker = Asker(f"{proxy.student.url}/v1", "tiny")
    asker = replace(asker, accept=asker.accept.model_copy(update={"hold_tokens": 2}))
    return asker.ask([question(row)], folder / "answers.jsonl")["r"].signals


def assert_alike(ours: Signals, theirs: Signals, within: float) -> None:
    near = {k: pytest.approx(v, abs=within * (ours.tokens if k == "sum_logprob" else 1)) for k, v in flat(ours).items()}
    assert flat(theirs) == near


def flat(signals: Signals) -> dict[str, Any]:
    found = {k: v for k, v in asdict(signals).items() if k != "held"}
    return found | ({f"held {k}": v for k, v in flat(signals.held).items()} if signals.held else {})


def assert_equal(proxy: World, row: Mapping[str, Any], engine: str, within: float, folder: Path) -> None:
    """One case as ``engine`` answered it, beside the embedded engine's answer."""
    case, stream, said = row["case"], row["stream"], row["said"]
    ours, theirs = (read(proxy, case, stream, said[name]) for name in ("embedded", engine))
    for found in (ours, theirs):
        assert found.told - found.signals.tokens == int((case, stream) == LEFT and found is theirs)
        if (case, stream) not in UNTOLD and case != SEVERAL:
            assert found.output_tokens == found.counted == found.signals.tokens
        if not stream:
            assert measured(proxy, said[engine if found is theirs else "embedded"], case, folder) == found.signals
            (folder / "answers.jsonl").unlink()
    if case == OWN_FORM:
        assert json.loads(theirs.text).keys() == json.loads(ours.text).keys()
        return
    assert (theirs.text, theirs.finish_reason) == (ours.text, ours.finish_reason)
    if (case, stream) in UNTOLD:
        assert theirs.signals.tokens < ours.signals.tokens
    else:
        assert (theirs.output_tokens, theirs.counted) == (ours.output_tokens, ours.counted)
        assert_alike(ours.signals, theirs.signals, within)


@pytest.mark.parametrize("row", json.loads(GOLDEN.read_bytes()), ids=lambda r: f"{r['case']}, {r['stream']}")
def test_what_the_engines_said_once_reads_alike(proxy: World, row: Mapping[str, Any], tmp_path: Path) -> None:
    assert_equal(proxy, row, "whole", CLOSE, tmp_path)
    if row["case"] not in NEAR_TIES:
        assert_equal(proxy, row, "llama-server", ROUNDED, tmp_path)


def test_the_engines_read_alike_on_equal_weights(proxy: World, tmp_path: Path, cache: Path, base: Path) -> None:
    assert base.is_dir()
    settings = Settings(home=tmp_path / "home", cache=cache)
    try:
        with both(tmp_path, settings) as urls:
            rows = recorded(urls)
    except EngineError as e:
        pytest.skip(str(e))
    for row in rows:
        assert_equal(proxy, row, "whole", CLOSE, tmp_path)
        if row["case"] not in NEAR_TIES:
            assert_equal(proxy, row, "llama-server", ROUNDED, tmp_path)
