"""Embeddings: passed to the model that the policy names, as bytes; counted, never routed."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml
from openai import APIStatusError, NotFoundError, OpenAI

from router.backends.roster import PolicyBackends
from router.errors import PolicyError
from router.policy.policy import load_policy
from tests.fakes import FakeUpstream, Script, World, policy_of, served, until, world

PACKED = base64.b64encode(struct.pack("<2f", 0.5, -0.25)).decode()
ANSWER: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}],
    "model": "vectors-1",
    "usage": {"prompt_tokens": 2000, "total_tokens": 2000},
    "something_new": {"kept": True},
}


@pytest.fixture(scope="module")
def vectors() -> Iterator[FakeUpstream]:
    upstream = FakeUpstream("vectors-1")
    with served(upstream) as upstream.url:
        yield upstream


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, vectors: FakeUpstream) -> Iterator[World]:
    part = {"model": "vectors-1", "url": f"{vectors.url}/v1", "api_key_env": "TEACHER_KEY", "usd_per_million": "0.02"}
    with world(tmp_path_factory.mktemp("world"), client_keys=("sk-mine",), embeddings=part) as found:
        yield found


@pytest.fixture(autouse=True)
def usual(vectors: FakeUpstream) -> None:
    vectors.always(raw=orjson.dumps(ANSWER))
    vectors.seen.clear()


@pytest.fixture
def client(proxy: World) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-mine", max_retries=0) as found:
        yield found


def post(proxy: World, body: Any, key: str = "sk-mine") -> httpx.Response:
    return httpx.post(f"{proxy.url}/v1/embeddings", json=body, headers={"authorization": f"Bearer {key}"})


@pytest.mark.parametrize("name", ["default", "gpt-4o", "locum/default", "vectors-1"])
def test_openais_client_gets_embeddings_by_any_name(client: OpenAI, vectors: FakeUpstream, name: str) -> None:
    found = client.embeddings.create(model=name, input=["a", "b"], dimensions=2, encoding_format="float")
    assert found.data[0].embedding == [0.5, -0.25]
    sent = vectors.seen[-1]
    assert sent.body == {"model": "vectors-1", "input": ["a", "b"], "dimensions": 2, "encoding_format": "float"}
    assert sent.headers["authorization"] == "Bearer sk-teacher-secret"


def test_packed_embeddings_are_the_clients_to_unpack(client: OpenAI, vectors: FakeUpstream) -> None:
    packed = ANSWER | {"data": [ANSWER["data"][0] | {"embedding": PACKED}]}
    vectors.always(raw=orjson.dumps(packed))
    assert client.embeddings.create(model="default", input="a").data[0].embedding == [0.5, -0.25]
    assert vectors.seen[-1].body["encoding_format"] == "base64"


@pytest.mark.parametrize("given", [[0.5, -0.25], PACKED])
@pytest.mark.parametrize(
    ("asked", "got"),
    [({}, [0.5, -0.25]), ({"encoding_format": "float"}, [0.5, -0.25]), ({"encoding_format": "base64"}, PACKED)],
)
def test_whatever_form_a_backend_knows_the_client_gets_what_it_asked_for(
    proxy: World, vectors: FakeUpstream, given: Any, asked: dict[str, Any], got: Any
) -> None:
    rows = [{"object": "embedding", "index": n, "embedding": given} for n in range(3)]
    vectors.always(raw=orjson.dumps(ANSWER | {"data": rows}))
    answer = post(proxy, {"model": "default", "input": ["a", "b", "c"], **asked}).json()
    assert answer == ANSWER | {"data": [row | {"embedding": got} for row in rows]}


def test_a_backend_that_refuses_a_form_is_asked_without_it(proxy: World, vectors: FakeUpstream) -> None:
    def picky(body: dict[str, Any]) -> Script:
        error = {"message": "encoding_format must be float", "type": "invalid_request_error"}
        return Script(status=400, error=error) if "encoding_format" in body else Script(raw=orjson.dumps(ANSWER))

    vectors.answer = picky
    answer = post(proxy, {"model": "default", "input": "a", "encoding_format": "base64"})
    assert answer.json()["data"][0]["embedding"] == PACKED
    refused = post(proxy, {"model": "default", "input": "a", "encoding_format": "int8"})
    assert (refused.status_code, vectors.seen[-1].body["encoding_format"]) == (400, "int8")


def test_vectors_of_other_shapes_pass_as_they_are_and_broken_ones_are_told(proxy: World, vectors: FakeUpstream) -> None:
    asked = {"model": "default", "input": "a", "encoding_format": "base64"}
    for odd in ([[0.5], [1.5]], [[0.5], 2], ["x"], None, {"sparse": 1}):
        vectors.always(raw=orjson.dumps(ANSWER | {"data": [{"embedding": odd}, 5]}))
        assert post(proxy, asked).json()["data"] == [{"embedding": odd}, 5]
    for broken in ("%%%", "abc="):
        vectors.always(raw=orjson.dumps(ANSWER | {"data": [{"embedding": broken}]}))
        assert post(proxy, asked | {"encoding_format": "float"}).status_code == 502


def test_many_long_vectors_are_given_in_the_form_asked_for(proxy: World, vectors: FakeUpstream) -> None:
    numbers = [n / 1024 for n in range(2000)]
    rows = [{"embedding": numbers, "index": n} for n in range(50)]
    vectors.always(raw=orjson.dumps(ANSWER | {"data": rows}))
    found = post(proxy, {"model": "default", "input": ["a"] * 50, "encoding_format": "base64"}).json()["data"]
    assert all(struct.unpack("<2000f", base64.b64decode(row["embedding"])) == tuple(numbers) for row in found)


def test_the_answer_passes_as_bytes_and_says_what_it_cost(proxy: World, vectors: FakeUpstream) -> None:
    content = orjson.dumps(ANSWER, option=orjson.OPT_INDENT_2)
    vectors.always(raw=content)
    answer = post(proxy, {"model": "default", "input": [1, 2, 3]})
    assert answer.content == content
    assert answer.headers["x-locum-cost-usd"] == "0.00004"
    assert answer.headers["x-locum-request-id"].startswith("req_")
    assert answer.headers["x-locum-policy"] == "default"


def test_they_are_counted_by_status_and_cost(proxy: World, vectors: FakeUpstream) -> None:
    def count(line: str) -> float:
        text = httpx.get(f"{proxy.url}/metrics").text
        return sum(float(found.split()[-1]) for found in text.splitlines() if found.startswith(line))

    good = 'locum_embeddings_total{policy="default",status_class="2xx"}'
    bad = 'locum_embeddings_total{policy="default",status_class="5xx"}'
    before = count(good), count(bad), count('locum_embeddings_usd_total{policy="default"}')
    post(proxy, {"model": "default", "input": "a"})
    vectors.always(status=500)
    post(proxy, {"model": "default", "input": "a"})
    after = count(good), count(bad), count('locum_embeddings_usd_total{policy="default"}')
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, pytest.approx(0.00004)]


def test_an_answer_without_usage_is_costed_by_its_input(proxy: World, vectors: FakeUpstream) -> None:
    vectors.always(raw=orjson.dumps({"data": []}))
    answer = post(proxy, {"model": "default", "input": "x" * 3998})
    assert answer.headers["x-locum-cost-usd"] == "0.00002"


@pytest.mark.parametrize(("body", "param"), [
    ({"input": "a"}, "model"),
    ({"model": "default"}, "input"),
    ({"model": "default", "input": []}, "input"),
    ({"model": "default", "input": {"a": 1}}, "input"),
])  # fmt: skip
def test_nonsense_is_told(proxy: World, body: Any, param: str) -> None:
    answer = post(proxy, body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert answer.headers["x-locum-request-id"]


def test_a_wrong_key_is_refused(proxy: World) -> None:
    assert post(proxy, {"model": "default", "input": "a"}, key="sk-else").status_code == 401


def test_a_refusal_passes_as_it_came(proxy: World, client: OpenAI, vectors: FakeUpstream) -> None:
    vectors.always(status=400, error={"message": "dimensions?", "type": "x", "param": "dimensions", "code": None})
    with pytest.raises(APIStatusError, match=r"dimensions\?") as caught:
        client.embeddings.create(model="default", input="a", dimensions=7)
    assert caught.value.response.headers["x-locum-request-id"]


@pytest.mark.parametrize("script", [{"status": 401}, {"raw": b"<html>"}, {"raw": b"[]"}])
def test_a_failing_backend_is_an_upstream_error(proxy: World, vectors: FakeUpstream, script: dict[str, Any]) -> None:
    vectors.always(**script)
    answer = post(proxy, {"model": "default", "input": "a"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "upstream_error")
    assert "sk-" not in answer.text


def test_without_a_backend_the_answer_says_what_the_policy_lacks(tmp_path: Path) -> None:
    with world(tmp_path) as bare, OpenAI(base_url=f"{bare.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(NotFoundError, match="names no model for embeddings"):
            client.embeddings.create(model="default", input="a")
        with pytest.raises(NotFoundError, match="locum/default"):
            client.embeddings.create(model="text-embedding-9", input="a")


def test_a_provider_behind_litellm_answers_in_openais_form(
    tmp_path: Path, vectors: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", f"{vectors.url}/v1")
    part = {"model": "hosted_vllm/vectors-1", "api_key_env": "TEACHER_KEY", "usd_per_million": "0.02"}
    with world(tmp_path, embeddings=part) as found:
        asked = {"model": "default", "input": ["a"], "dimensions": 2}
        answer = httpx.post(f"{found.url}/v1/embeddings", json=asked, timeout=60)  # the first one imports litellm
        packed = httpx.post(f"{found.url}/v1/embeddings", json=asked | {"encoding_format": "base64"}, timeout=60)
    assert packed.json()["data"][0]["embedding"] == PACKED
    assert answer.json()["data"][0]["embedding"] == [0.5, -0.25]
    assert answer.headers["x-locum-cost-usd"] == "0.00004"
    assert vectors.seen[-1].body == asked | {"model": "vectors-1"}


def backends(tmp_path: Path, **part: Any) -> PolicyBackends:
    student, teacher = FakeUpstream("tiny"), FakeUpstream("big")
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy_of(student, teacher, embeddings=part)))
    return PolicyBackends(load_policy(file), {"OPENAI_API_KEY": "sk-1"})


def test_openais_own_model_needs_neither_url_nor_price(tmp_path: Path) -> None:
    found = backends(tmp_path, model="openai/text-embedding-3-small").embeddings
    assert found
    assert (found.url, found.model, found.key) == ("https://api.openai.com/v1", "text-embedding-3-small", "sk-1")
    assert found.price
    assert float(found.price.input) == pytest.approx(0.02)


def test_a_model_that_no_one_knows_the_price_of_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"embeddings\.usd_per_million"):
        backends(tmp_path, model="mine", url="http://localhost:1/v1")


def test_what_an_embedding_cost_is_recorded_by_user_task_and_key_and_its_text_is_not(proxy: World) -> None:
    from_ann = {"input": "my secret text", "model": "vectors-1", "user": "ann", "metadata": {"task": "search"}}
    request_id = post(proxy, from_ann).headers["x-locum-request-id"]
    record = until(lambda: proxy.record(request_id))
    assert record.embedding and (record.user, record.task, record.status) == ("ann", "search", 200)
    assert record.owner and "sk-mine" not in repr(record) and "secret" not in repr(record)
    assert record.cost_usd == Decimal("0.00004") and record.answers[0].usage.input_tokens == 2000
    assert not record.answers[0].usage.estimated and not record.is_traffic


def test_an_embedding_that_tells_no_count_or_an_odd_one_is_estimated(proxy: World, vectors: FakeUpstream) -> None:
    for usage in ({}, {"prompt_tokens": -4, "total_tokens": None}, {"prompt_tokens": "many"}):
        vectors.always(raw=orjson.dumps(ANSWER | {"usage": usage}))
        request_id = post(proxy, {"input": "x" * 400, "model": "vectors-1"}).headers["x-locum-request-id"]
        used = until(lambda request_id=request_id: proxy.record(request_id)).answers[0].usage
        assert used.estimated and used.input_tokens == 100
