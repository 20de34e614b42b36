"""What a request can cost at most: never less than what is billed, whatever it is made of."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from router.contracts.prices import Price
from router.wire.ceiling import OUTPUT_TOKENS, Dearest

PRICE = Price(input=Decimal(1), output=Decimal(1000), cached_input=Decimal("0.1"))


def dearest(body: dict[str, Any], model: str = "own", price: Price = PRICE) -> tuple[int, int]:
    """(tokens of input, tokens of output)."""
    tokens = Dearest(body).usd(model, price) * 1_000_000
    return int(tokens % 1000), int(tokens // 1000)


def asked(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"max_tokens": 7, "n": 3, "best_of": 5}, 35),
        ({}, OUTPUT_TOKENS),
        ({"max_tokens": None, "n": None}, OUTPUT_TOKENS),
        ({"max_tokens": -1, "n": 0}, OUTPUT_TOKENS),
        ({"max_tokens": 0.5, "n": True}, OUTPUT_TOKENS),
        ({"max_tokens": "7"}, OUTPUT_TOKENS),
        ({"max_tokens": "50000"}, 50_000),
        ({"max_tokens": 50_000.0, "max_completion_tokens": 1}, 50_000),
        ({"max_tokens": 7, "n": "3"}, 21),
        ({"max_tokens": 7, "n": 2.0}, 14),
        ({"max_tokens": 7, "best_of": "4"}, 28),
        ({"max_tokens": "1e400", "n": "many"}, OUTPUT_TOKENS),
        ({"max_tokens": 7, "n": "9" * 500}, 7),
    ],
)
def test_an_answer_is_as_long_as_the_client_lets_it_be_else_as_usual_ones_get(
    fields: dict[str, Any], tokens: int
) -> None:
    assert dearest(asked(**fields))[1] == tokens


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4o", 16_384), ("openai/gpt-5", 128_000)])
def test_a_known_model_says_no_more_than_it_can(model: str, tokens: int) -> None:
    assert dearest(asked(), model)[1] == tokens
    assert dearest(asked(max_tokens=10**9), model)[1] == tokens
    assert dearest(asked(max_tokens=5), model)[1] == 5


@pytest.mark.parametrize("text", ["plain words", "日本語のテキスト", "👩‍👩‍👧‍👦" * 5, "\ud800", "x" * 900])
def test_a_text_counts_a_token_a_byte(text: str) -> None:
    read = Dearest(asked(text, max_tokens=1)).usd("own", Price(input=Decimal(1), output=Decimal(0))) * 1_000_000
    size = len(text.encode("utf-8", "surrogatepass"))
    assert size < read < size + 200


def test_all_that_is_read_counts_tools_schemas_histories_and_fields_nobody_knows() -> None:
    long = "word " * 40_000
    free = Price(input=Decimal(1), output=Decimal(0))
    for fields in (
        {"tools": [{"type": "function", "function": {"name": "f", "description": long}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {long: {}}}}}]},
        {"functions": [{"name": "f", "parameters": {"enum": [long]}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": long}}}},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": long}}]}]},
        {"messages": [{"role": "assistant", "content": "x", "reasoning_content": long}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": long}]}]},
        {"from_the_future": {"a": [[[long]]]}},
    ):
        assert Dearest({**asked(), **fields}).usd("own", free) > Decimal("0.2")
    assert Dearest({**asked(long * 10)}).usd("gpt-4o", free) == Decimal("0.128"), "it reads no more than it can"
    assert Dearest({"input": [long] * 9}).usd("text-embedding-3-small", free) > Decimal(1), "each text is read apart"


def test_a_picture_a_sound_and_a_file_count_by_what_they_are_not_by_their_base64() -> None:
    free, data = Price(input=Decimal(1), output=Decimal(0)), "A" * 3_000_000

    def read(part: dict[str, Any]) -> int:
        return int(Dearest({"messages": [{"role": "user", "content": [part]}]}).usd("own", free) * 1_000_000)

    assert 4_784 < read({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}) < 10_000
    assert 4_784 < read({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}) < 10_000
    assert 50_000 < read({"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}) < 100_000
    assert read({"type": "file", "file": {"file_id": "f"}}) > 100_000
    assert read({"type": "file", "file": {"file_data": data}}) > 3_000_000


@pytest.mark.parametrize("kind", ["image_url", "image", "input_audio", "file", "video_url"])
def test_a_text_is_no_picture_whatever_stands_beside_it(kind: str) -> None:
    free, long = Price(input=Decimal(1), output=Decimal(0)), "word " * 400_000
    for message in (
        {"role": "user", "type": kind, "content": long},
        {"role": "user", "type": kind, "content": [{"type": "text", "text": long}]},
        {"role": "user", "content": [{"type": kind, "text": long}]},
        {"role": "user", "content": [{"type": kind, kind: {"url": "https://example.com/a", "detail": long}}]},
    ):
        assert Dearest({"messages": [message]}).usd("own", free) > Decimal(2)


def test_a_film_counts_as_long_wherever_it_lies() -> None:
    film = {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}
    free = Price(input=Decimal(1), output=Decimal(0))
    assert Dearest({"messages": [{"role": "user", "content": [film]}]}).usd("own", free) >= 1


def test_how_deep_a_request_goes_does_not_matter() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert dearest(asked(odd=deep, max_tokens=1))[1] >= 1
