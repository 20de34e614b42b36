"""Usage objects as providers send them, and the bill that each of them is: the arithmetic stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from router.contracts.prices import Price
from router.contracts.records import Usage
from router.pricing import cost_usd
from router.wire.assembly import Assembly
from router.wire.estimates import exceeds, unless_free, usage_or
from router.wire.usage import MOST_TOKENS, ToldUsage, count, read_usage, told_in, usage_in

PRICE = Price.model_validate(
    {
        "input": 1,
        "output": 10,
        "cached_input": 0.1,
        "cache_write": 1.25,
        "cache_write_1h": 2,
        "input_audio": 8,
        "cached_audio": 2,
        "output_audio": 40,
        "input_image": 3,
        "output_image": 30,
        "search": 10_000,
        "search_high": 14_000,
        "tiers": {"flex": {"input": 0.5, "output": 5, "cached_input": 0.05}, "priority": {"input": 2, "output": 20}},
        "times": {"fast": 6, "us": 1.1},
    }
)
"""USD a million; a search costs 10,000 of the millionths of a dollar below."""


class Shape(NamedTuple):
    """What is told, and what it costs in millionths of a dollar; ``beside``: other fields of the answer."""

    usage: dict[str, Any]
    bill: float
    beside: Mapping[str, Any] = MappingProxyType({})


PLAIN = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}
SHAPES = {
    "zeros": Shape({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, 0),
    "openai": Shape(
        PLAIN
        | {
            "prompt_tokens_details": {"cached_tokens": 800, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 4,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        200 * 1 + 800 * 0.1 + 10 * 10,
    ),
    "openai, thoughts among the answer": Shape(
        {
            "prompt_tokens": 1000,
            "completion_tokens": 410,
            "total_tokens": 1410,
            "completion_tokens_details": {"reasoning_tokens": 400},
        },
        1000 * 1 + 410 * 10,
    ),
    "openai, flex": Shape(
        PLAIN | {"prompt_tokens_details": {"cached_tokens": 800}},
        200 * 0.5 + 800 * 0.05 + 10 * 5,
        {"service_tier": "flex"},
    ),
    "openai, priority": Shape(PLAIN, 1000 * 2 + 10 * 20, {"service_tier": "priority"}),
    "openai, the usual tier": Shape(PLAIN, 1000 + 100, {"service_tier": "default"}),
    "openai, cache writes": Shape(
        PLAIN | {"prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 900}}, 100 * 1 + 900 * 1.25 + 100
    ),
    "openai, sound": Shape(
        PLAIN
        | {
            "prompt_tokens_details": {"audio_tokens": 900, "text_tokens": 100, "cached_tokens": 0},
            "completion_tokens_details": {"audio_tokens": 9, "text_tokens": 1},
        },
        100 * 1 + 900 * 8 + 1 * 10 + 9 * 40,
    ),
    "openai realtime, cached sound": Shape(
        {
            "input_tokens": 1000,
            "output_tokens": 10,
            "total_tokens": 1010,
            "input_token_details": {},
            "input_tokens_details": {
                "cached_tokens": 500,
                "audio_tokens": 600,
                "text_tokens": 400,
                "cached_tokens_details": {"audio_tokens": 300, "text_tokens": 200},
            },
            "output_tokens_details": {"audio_tokens": 10},
        },
        # 600 of sound: 300 cached, 300 fresh; 400 of text: 200 cached, 200 fresh
        300 * 2 + 300 * 8 + 200 * 0.1 + 200 * 1 + 10 * 40,
    ),
    "openai responses": Shape(
        {
            "input_tokens": 1000,
            "input_tokens_details": {"cached_tokens": 800},
            "output_tokens": 410,
            "output_tokens_details": {"reasoning_tokens": 400},
            "total_tokens": 1410,
        },
        200 + 80 + 4100,
    ),
    "gemini by openai's wire, thoughts in the total alone": Shape(
        {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1410}, 1000 + 410 * 10
    ),
    "gemini, pictures": Shape(
        {
            "prompt_tokens": 1000,
            "completion_tokens": 1300,
            "total_tokens": 2300,
            "prompt_tokens_details": {"image_tokens": 258, "text_tokens": 742},
            "completion_tokens_details": {"image_tokens": 1290, "text_tokens": 10},
        },
        742 * 1 + 258 * 3 + 10 * 10 + 1290 * 30,
    ),
    "xai, thoughts beside the answer": Shape(
        {
            "prompt_tokens": 1000,
            "completion_tokens": 10,
            "total_tokens": 1410,
            "prompt_tokens_details": {"text_tokens": 1000, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 400, "audio_tokens": 0},
            "num_sources_used": 0,
        },
        1000 + 410 * 10,
    ),
    "xai, no total": Shape(
        {"prompt_tokens": 1000, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 400}},
        1000 + 410 * 10,
    ),
    "xai, ticks of a dollar": Shape(PLAIN | {"cost_in_usd_ticks": 37_756_000}, 3775.6),
    "xai, sources": Shape(PLAIN | {"num_sources_used": 3}, 1000 + 100 + 3 * 10_000),
    "deepseek": Shape(
        PLAIN
        | {
            "prompt_cache_hit_tokens": 800,
            "prompt_cache_miss_tokens": 200,
            "prompt_tokens_details": {"cached_tokens": 800},
        },
        200 + 80 + 100,
    ),
    "deepseek, its own names alone": Shape(
        PLAIN | {"prompt_cache_hit_tokens": 800, "prompt_cache_miss_tokens": 200}, 200 + 80 + 100
    ),
    "moonshot": Shape(PLAIN | {"cached_tokens": 800}, 200 + 80 + 100),
    "zhipu": Shape(PLAIN | {"prompt_tokens_details": {"cached_tokens": 800}}, 200 + 80 + 100),
    "dashscope, a cache of one's own": Shape(
        PLAIN
        | {
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_creation_input_tokens": 900,
                "cache_creation": {"ephemeral_5m_input_tokens": 900},
                "cache_type": "ephemeral",
            }
        },
        100 + 900 * 1.25 + 100,
    ),
    "anthropic": Shape(
        {
            "input_tokens": 100,
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 600,
            "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
            "output_tokens": 10,
            "service_tier": "standard",
        },
        100 * 1 + 200 * 1.25 + 100 * 2 + 600 * 0.1 + 10 * 10,
    ),
    "anthropic, writes by their time alone": Shape(
        {
            "input_tokens": 100,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 900},
            "cache_read_input_tokens": 0,
            "output_tokens": 10,
        },
        100 + 900 * 2 + 100,
    ),
    "anthropic, fast and in one country, with searches": Shape(
        {
            "input_tokens": 1000,
            "output_tokens": 10,
            "speed": "fast",
            "service_tier": "standard",
            "inference_geo": "us",
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 5},
        },
        (1000 + 100) * 6 * 1.1 + 2 * 10_000,
    ),
    "litellm's, of claude": Shape(
        PLAIN
        | {
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 600,
            "prompt_tokens_details": {
                "cached_tokens": 600,
                "cache_creation_tokens": 300,
                "cache_creation_token_details": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
            },
        },
        100 + 200 * 1.25 + 100 * 2 + 600 * 0.1 + 100,
    ),
    "a gateway's, of claude, the cache beside the prompt": Shape(
        {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "total_tokens": 1010,
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 600,
        },
        100 + 300 * 1.25 + 600 * 0.1 + 100,
    ),
    "openrouter": Shape(
        PLAIN
        | {
            "cost": 0.00777,
            "is_byok": False,
            "cost_details": {"upstream_inference_cost": None},
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        7770,
    ),
    "openrouter, a key of one's own": Shape(
        PLAIN | {"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}}, 100 + 2000
    ),
    "openrouter, such a key and nobody says what it paid": Shape(
        PLAIN | {"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, 1000 + 100
    ),
    "openrouter, free": Shape(PLAIN | {"cost": 0}, 0),
    "deepinfra": Shape(PLAIN | {"estimated_cost": 3.5e-05, "prompt_tokens_details": None}, 35),
    "perplexity": Shape(
        PLAIN
        | {
            "search_context_size": "low",
            "citation_tokens": 0,
            "num_search_queries": 1,
            "cost": {
                "input_tokens_cost": 0.001,
                "output_tokens_cost": 0.0001,
                "total_cost": 0.0061,
            },
        },
        6100,
    ),
    "perplexity, no bill": Shape(
        PLAIN | {"search_context_size": "high", "num_search_queries": 2}, 1000 + 100 + 2 * 14_000
    ),
    "vercel": Shape(PLAIN, 4500, {"provider_metadata": {"gateway": {"cost": "0.0045", "routing": {}}}}),
    "groq": Shape(
        PLAIN | {"queue_time": 0.06, "prompt_time": 0.001, "completion_time": 0.2, "total_time": 0.201},
        1000 + 100,
        {"service_tier": "on_demand"},
    ),
    "github copilot": Shape(
        {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "reasoning_tokens": 4}, 1000 + 100
    ),
    "mistral": Shape(PLAIN | {"prompt_audio_seconds": None, "num_cached_tokens": 0}, 1000 + 100),
    "vllm": Shape(PLAIN | {"prompt_tokens_details": None}, 1000 + 100),
    "minimax": Shape(PLAIN | {"total_characters": 0, "completion_tokens_details": {"reasoning_tokens": 5}}, 1000 + 100),
    "floats": Shape({k: float(v) for k, v in PLAIN.items()}, 1000 + 100),
    "texts": Shape({k: str(v) for k, v in PLAIN.items()}, 1000 + 100),
    "the total and the prompt alone": Shape({"prompt_tokens": 1000, "total_tokens": 1010}, 1000 + 100),
    "null details": Shape(PLAIN | {"prompt_tokens_details": None, "completion_tokens_details": None}, 1000 + 100),
    "a cost that cannot be": Shape(PLAIN | {"cost": -3}, 1000 + 100),
    "a cost that is no number": Shape(PLAIN | {"cost": "NaN"}, 1000 + 100),
    "a cost beyond belief": Shape(PLAIN | {"cost": 1e12}, 1000 + 100),
    "a total beyond belief": Shape(PLAIN | {"total_tokens": 90_000_000}, 1000 + 100),
    "a total of too little": Shape(PLAIN | {"total_tokens": 7}, 1000 + 100),
    "more cached than read": Shape(PLAIN | {"prompt_tokens_details": {"cached_tokens": 5000}}, 1000 * 0.1 + 100),
    "details that are none": Shape(PLAIN | {"prompt_tokens_details": [1], "completion_tokens_details": "x"}, 1100),
}


def billed(told: ToldUsage | None) -> float:
    assert told is not None
    return float(cost_usd(usage_or(told, Usage), PRICE) * 1_000_000)


@pytest.mark.parametrize("name", SHAPES)
def test_a_provider_s_usage_costs_what_its_bill_says(name: str) -> None:
    usage, bill, beside = SHAPES[name]
    answer = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": usage, **beside}
    assert billed(usage_in(answer)) == pytest.approx(bill)


@pytest.mark.parametrize("where", ["last", "choice", "groq", "each", "growing", "before the end"])
@pytest.mark.parametrize("name", SHAPES)
def test_streamed_it_costs_the_same_wherever_it_is_told(name: str, where: str) -> None:
    usage, bill, beside = SHAPES[name]
    said: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": "hi"}}], "usage": None}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    less = {
        name: 0 for name in ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens") if name in usage
    }
    chunks: list[dict[str, Any]] = {
        "last": [said, last, {"choices": [], "usage": usage}],
        "choice": [said, {"choices": [{**last["choices"][0], "usage": usage}]}],
        "groq": [said, {**last, "x_groq": {"id": "r", "usage": usage}}],
        "each": [said | {"usage": usage}, last | {"usage": usage}, {"choices": [], "usage": usage}],
        "growing": [said | {"usage": less}, last | {"usage": less}, {"choices": [], "usage": usage}],
        "before the end": [said, {"choices": [], "usage": usage}, last | {"usage": {}}],
    }[where]
    found = Assembly()
    for chunk in chunks:
        found.add(chunk | beside)
    assert billed(found.usage) == pytest.approx(bill)


@pytest.mark.parametrize(
    "value", [-1, -0.5, MOST_TOKENS + 1, 1e300, float("inf"), float("nan"), True, "many", "", "1" * 99, None, [1], {}]
)
def test_a_count_that_cannot_be_is_as_good_as_none(value: Any) -> None:
    assert count(value) is None
    told = read_usage({"prompt_tokens": value, "completion_tokens": 10})
    assert told is not None and told.lacks_input and not told.lacks_output
    used = usage_or(told, lambda: Usage(input_tokens=77, output_tokens=88, estimated=True))
    assert (used.input_tokens, used.output_tokens, used.estimated) == (77, 10, True)


def test_what_a_cut_stream_told_is_of_its_beginning() -> None:
    told = read_usage({"prompt_tokens": 1000, "completion_tokens": 1})
    guess = Usage(input_tokens=7, output_tokens=50, estimated=True)
    assert usage_or(told, lambda: guess, cut=True) == Usage(input_tokens=1000, output_tokens=50, estimated=True)
    assert usage_or(told, lambda: guess) == Usage(input_tokens=1000, output_tokens=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "x" * 40,  # some vocabularies have such tokens
        " " * 100_000,  # runs are tokens of a hundred characters
        "\n" * 100_000 + "-" * 100_000,
        "data:image/png;base64," + "iVBORw0KGgo" * 10_000,
        *(" " * (65_536 - n) + "data:image/png;base64," + "iVBORw0KGgo" * 20_000 for n in (3, 10, 22, 30)),
    ],
)
def test_a_text_that_may_be_one_token_is_taken_for_one(text: str) -> None:
    assert not exceeds(text, 1)


@pytest.mark.parametrize("text", ["word " * 400, "слово " * 400, "你好世界" * 400, '{"a": 1}' * 400])
def test_fewer_tokens_than_a_text_can_be_are_not_believed(text: str) -> None:
    guess = Usage(input_tokens=7, output_tokens=500, estimated=True)
    for few in (0, 1, 20):
        told = read_usage({"prompt_tokens": few, "completion_tokens": few})
        used = usage_or(told, lambda: guess, said=text)
        assert used == Usage(input_tokens=few or 7, output_tokens=500, estimated=True)
    true = read_usage({"prompt_tokens": 20, "completion_tokens": len(text) // 8})
    assert not usage_or(true, lambda: guess, said=text).estimated


def test_no_tokens_of_an_empty_answer_are_none() -> None:
    told = read_usage({"prompt_tokens": 0, "completion_tokens": 0})
    guess = Usage(input_tokens=7, output_tokens=9, estimated=True)
    assert usage_or(told, lambda: guess) == Usage(input_tokens=7, estimated=True), "but no prompt is none"


def test_a_bill_of_nothing_is_taken_out_and_no_other() -> None:
    counts = {"prompt_tokens": 20, "completion_tokens": 4}
    free, cheap = read_usage(counts | {"cost": 0.0}), read_usage(counts | {"cost": 0.001})
    assert unless_free(free) == read_usage(counts)
    assert unless_free(cheap) == cheap and unless_free(None) is None
    assert unless_free(read_usage({"cost": 0})) is None


def test_a_bill_told_after_the_counts_is_added_to_them() -> None:
    found = Assembly()
    found.add({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}], "usage": PLAIN})
    found.add({"choices": [], "usage": {"cost": 0.004}})
    told = found.usage
    assert told is not None and told.usage.input_tokens == 1000 and told.usage.billed_usd == Decimal("0.004")


def test_the_tier_that_the_answer_names_is_billed_else_the_asked_one() -> None:
    answer = {"choices": [], "usage": PLAIN}
    tier = lambda beside, asked: usage_or(usage_in(answer | beside), Usage, asked_tier=asked).service_tier  # noqa: E731
    assert tier({}, "flex") == "flex"
    assert tier({"service_tier": "default"}, "flex") is None
    assert tier({"service_tier": "priority"}, "auto") == "priority"
    assert tier({"service_tier": None}, "priority") == "priority"
    assert tier({}, "auto") is None and tier({}, 7) is None
    assert tier({"service_tier": "x" * 99}, None) is None


def test_what_is_no_usage_tells_nothing() -> None:
    for told in ({}, {"usage": None}, {"usage": []}, {"usage": {}}, {"usage": {"seconds": 3}}, [], None):
        assert usage_in(told) is None
    assert told_in({"choices": ["odd", None]}) is None


def counts(read: Any, said: Any) -> dict[str, Any]:
    return {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}


XAI = {"completion_tokens": 40, "total_tokens": 100, "completion_tokens_details": {"reasoning_tokens": 60}}
PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "claude's, the end without the prompt": (
        {"prompt_tokens": 1000, "completion_tokens": 1},
        {"completion_tokens": 100},
    ),
    "claude's own names": ({"input_tokens": 1000, "output_tokens": 1}, {"input_tokens": 0, "output_tokens": 100}),
    "a prompt of 0 at the end": (counts(1000, 1), counts(0, 100)),
    "each kind in its chunk": ({"prompt_tokens": 1000}, {"completion_tokens": 100}),
    "nulls at the end": (counts(1000, 1), {"prompt_tokens": None, "completion_tokens": 100, "total_tokens": None}),
    "other names at the end": (counts(1000, 1), {"output_tokens": 100}),
    "texts": ({"prompt_tokens": "1000", "completion_tokens": "1"}, {"prompt_tokens": "0", "completion_tokens": "100"}),
    "zeros at the end": (counts(1000, 100), counts(0, 0)),
    "negative at the end": (counts(1000, 100), {"prompt_tokens": -1, "completion_tokens": -1}),
    "less at the end": (counts(1000, 100), counts(1000, 90)),
    "thoughts beside the answer": (counts(1000, 1), {"prompt_tokens": 0, **XAI}),
}


@pytest.mark.parametrize("name", PARTS)
def test_of_a_usage_told_in_parts_each_count_is_the_fullest(name: str) -> None:
    first, last = PARTS[name]
    found = Assembly()
    found.add({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "usage": first})
    found.add({"choices": [{"index": 0, "delta": {"content": "card arrival"}}]})
    found.add({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    found.add({"choices": [], "usage": last})
    assert billed(found.usage) == pytest.approx(1000 * 1 + 100 * 10)


@pytest.mark.parametrize(
    "last", [None, {}, {"completion_tokens": None}, {"completion_tokens": -3}, counts(1000, 0), [1]]
)
def test_a_place_for_a_count_is_a_lower_bound_where_the_end_tells_none(last: Any) -> None:
    found = Assembly()
    found.add({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "usage": counts(1000, 1)})
    found.add({"choices": [{"index": 0, "delta": {"content": "some words"}}]})
    found.add({"choices": [], "usage": last})
    assert found.outgrown


def test_a_cache_s_share_is_that_of_the_last_whole_usage() -> None:
    found = Assembly()
    for cached in (900, 0):
        found.add({"choices": [], "usage": counts(1000, 100) | {"prompt_tokens_details": {"cached_tokens": cached}}})
    assert billed(found.usage) == 1000 + 1000


def test_three_zeros_are_believed_of_what_is_short_alone() -> None:
    free, guess = read_usage(counts(0, 0)), Usage(input_tokens=77, output_tokens=30, estimated=True)
    assert free is not None and free.free
    long = "where is my new card " * 20
    assert usage_or(free, lambda: guess, said=long).output_tokens == 30
    assert usage_or(free, lambda: guess, said="yes", asked_tokens=77, asked=lambda: long).input_tokens == 77
    assert usage_or(free, lambda: guess, said="yes", asked_tokens=3, asked=lambda: "card").billed_usd is None


@pytest.mark.parametrize(
    ("usage", "read", "said"),
    [
        ({"prompt_tokens": 0, "input_tokens": 1000, "output_tokens": 100}, 1000, 100),
        ({"prompt_tokens": 1000, "input_tokens": 0, "completion_tokens": 0, "output_tokens": 100}, 1000, 100),
        ({"prompt_tokens": 0, "completion_tokens": 100, "total_tokens": 1100}, 1000, 100),
        ({"total_tokens": 5000}, 77, 4923),
        ({"total_tokens": 5}, 5, 3),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": "5000"}, 77, 4923),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, 0, 0),
        ({"prompt_tokens": 0, "completion_tokens": 0}, 77, 3),
        ({"prompt_tokens": 1000, "completion_tokens": 0}, 1000, 3),
        ({"prompt_tokens": 0, "completion_tokens": 5}, 77, 5),
    ],
)
def test_a_count_of_0_is_told_by_another_name_or_not_at_all(usage: dict[str, Any], read: int, said: int) -> None:
    guess = Usage(input_tokens=77, output_tokens=3, estimated=True)
    used = usage_or(read_usage(usage), lambda: guess, said="card arrival")
    assert (used.input_tokens, used.output_tokens) == (read, said)
    assert used.estimated is (read in (5, 77) or said == 3)


@pytest.mark.parametrize("told", [0, 1, 20])
@pytest.mark.parametrize("usual", ["word " * 20_000, "слово " * 20_000, "{}" * 50_000])
def test_fewer_tokens_than_a_prompt_can_be_are_not_believed(told: int, usual: str) -> None:
    tokens = len(usual.encode()) // 4
    guess = Usage(input_tokens=tokens, output_tokens=3, estimated=True)
    asked = {"asked_tokens": tokens, "asked": lambda: usual}
    used = usage_or(read_usage(counts(told, 5)), lambda: guess, said="yes", **asked)  # type: ignore[arg-type]
    assert (used.input_tokens, used.output_tokens, used.estimated) == (tokens, 5, True)
    true = read_usage(counts(max(20, len(usual) // 8), 5))
    assert not usage_or(true, lambda: guess, said="yes", **asked).estimated  # type: ignore[arg-type]
    billed_itself = read_usage(counts(told, 5) | {"cost": 0.5})
    assert not usage_or(billed_itself, lambda: guess, said="yes", **asked).estimated  # type: ignore[arg-type]


def test_a_prompt_that_may_be_few_tokens_is_believed() -> None:
    picture = " " * 40_000 + "data:image/png;base64," + "iVBORw0KGgo" * 10_000
    guess = Usage(input_tokens=40_000, output_tokens=3, estimated=True)
    used = usage_or(read_usage(counts(9, 5)), lambda: guess, said="yes", asked_tokens=40_000, asked=lambda: picture)
    assert used == Usage(input_tokens=9, output_tokens=5)
