"""What a request cost, and what the teacher alone would have charged."""

import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from router.contracts.prices import Price
from router.contracts.records import Usage
from router.errors import PolicyError
from router.policy.policy import Policy
from router.price_map import litellm_price
from router.pricing import Prices, cost_usd, counterfactual_usd

GPT = Price(input=Decimal("2.5"), output=Decimal(10), cached_input=Decimal("1.25"))


def policy(**teacher: Any) -> Policy:
    return Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0.02, "output": 0.06}},
            "teacher": teacher,
            "objective": {"threshold": 0.5},
        }
    )


def test_a_prompt_cache_hit_costs_its_own_price() -> None:
    usage = Usage(input_tokens=1_000, cached_input_tokens=800, output_tokens=100)
    assert cost_usd(usage, GPT) == Decimal("0.0025")  # 200 x 2.5 + 800 x 1.25 + 100 x 10, over a million
    assert cost_usd(usage, Price(input=Decimal("2.5"), output=Decimal(10))) == Decimal("0.0035")


def test_more_cached_than_sent_is_a_server_s_mistake_not_a_gift() -> None:
    assert cost_usd(Usage(input_tokens=10, cached_input_tokens=99), GPT) == Decimal("0.0000125")


def test_a_million_small_sums_stay_exact() -> None:
    one = cost_usd(Usage(input_tokens=1, output_tokens=1), GPT)
    assert sum((one for _ in range(100_000)), Decimal(0)) == Decimal("1.25")


def test_the_counterfactual_of_a_teacher_s_answer_is_its_cost() -> None:
    usage = Usage(input_tokens=1_000, cached_input_tokens=500, output_tokens=10)
    assert counterfactual_usd(usage, GPT) == cost_usd(usage, GPT)


def test_the_counterfactual_of_a_student_s_answer_keeps_the_teacher_s_cache_discount_only() -> None:
    usage = Usage(input_tokens=1_000, cached_input_tokens=900, output_tokens=0)  # the student's own cache
    assert counterfactual_usd(usage, GPT, cached_share=0.0) == Decimal("0.0025")
    assert counterfactual_usd(usage, GPT, cached_share=0.5) == Decimal("0.001875")
    assert counterfactual_usd(usage, GPT, cached_share=7.0) == Decimal("0.00125")


def test_litellm_s_map_is_read_with_and_without_the_provider() -> None:
    bare, named = litellm_price("gpt-4o"), litellm_price("openai/gpt-4o")
    assert bare is not None and bare == named
    assert (bare.input, bare.output, bare.cached_input) == (Decimal("2.5"), Decimal(10), Decimal("1.25"))
    assert litellm_price("anthropic/claude-opus-4-5") is not None


def test_another_vendor_s_namesake_has_no_price() -> None:
    assert litellm_price("my-own-cloud/gpt-4o") is None
    assert litellm_price("no-such-model") is None


def test_prices_are_told_without_importing_litellm() -> None:
    code = (
        "import sys; from router.price_map import listed; assert listed('gpt-4o')[0]; print('litellm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_policy_s_own_price_wins() -> None:
    own = {"input": 1, "output": 2}
    prices = Prices.of(policy(model="openai/gpt-4o", usd_per_million=own, fallbacks=["anthropic/claude-opus-4-5"]))
    assert prices.teacher().input == 1
    assert prices.teacher("anthropic/claude-opus-4-5").input == 5
    assert prices.teacher("never heard of") == prices.teacher()
    assert prices.student.output == Decimal("0.06")


def test_an_unknown_price_is_asked_for_in_words() -> None:
    with pytest.raises(PolicyError, match=r"teacher\.usd_per_million"):
        Prices.of(policy(model="house-model", url="http://127.0.0.1:1/v1"))
    with pytest.raises(PolicyError, match="fallbacks"):
        Prices.of(policy(model="openai/gpt-4o", fallbacks=["house-model"]))


def test_what_a_prompt_cache_took_up_costs_more_and_for_an_hour_twice() -> None:
    usage = Usage(input_tokens=1_000, cached_input_tokens=100, cache_written_tokens=600, cache_written_1h_tokens=200)
    known = Price(input=Decimal(4), output=Decimal(20), cached_input=Decimal(1), cache_write=Decimal(6))
    assert cost_usd(usage, known) == Decimal("0.0053")  # 300 x 4 + 100 x 1 + 400 x 6 + 200 x 8, over a million
    unknown = Price(input=Decimal(4), output=Decimal(20))
    assert cost_usd(usage, unknown) == Decimal("0.0052")  # 400 x 4 + 400 x 5 + 200 x 8
    assert cost_usd(Usage(input_tokens=10, cache_written_tokens=99, cache_written_1h_tokens=999), unknown) == Decimal(
        "0.00008"
    )
    assert cost_usd(Usage(input_tokens=10, cached_input_tokens=20, cache_written_tokens=9), known) == Decimal("0.00001")


def test_the_map_knows_what_claude_takes_for_cache_writes_and_the_student_s_own_never_count() -> None:
    claude = litellm_price("anthropic/claude-opus-4-5")
    assert claude is not None and claude.writes == (claude.input * Decimal("1.25"), claude.input * 2)
    usage = Usage(input_tokens=1_000, cache_written_tokens=1_000)
    assert counterfactual_usd(usage, claude) == cost_usd(usage, claude) == claude.writes[0] / 1000
    assert counterfactual_usd(usage, claude, cached_share=0) == claude.input / 1000
