"""Whatever a provider calls it, an answer ended, was cut off, was filtered, or broke off."""

from __future__ import annotations

import pytest

from router.wire.finish import finish_of


@pytest.mark.parametrize(
    ("finish", "told"),
    [
        (
            "stop",
            "stop eos EOS_TOKEN end_turn STOP stop_sequence STOP_SEQUENCE COMPLETE endoftext stop-sequence FINISHED",
        ),
        (
            "stop",
            "FinishReason.STOP FINISH_REASON_STOP eosFound stopStringFound stopped_eos normal end_of_text",
        ),
        ("stop", "ALTERNATIVE_STATUS_FINAL STOP_CRITERIA_MET completed"),
        ("length", "length max_tokens MAX_TOKENS model_length max_output_tokens maxPredictedTokensReached time_limit"),
        ("length", "ALTERNATIVE_STATUS_TRUNCATED_FINAL model_context_window_exceeded contextLengthReached pause_turn"),
        ("content_filter", "content_filter content-filter SAFETY RECITATION PROHIBITED_CONTENT sensitive refusal"),
        ("content_filter", "guardrail_intervened CONTENT_FILTERED ERROR_TOXIC FinishReason.BLOCKLIST blacklist SPII"),
        ("tool_calls", "tool_calls tool_use TOOL_CALL tool-calls"),
        ("function_call", "function_call"),
        ("error", "error ERROR abort network_error insufficient_system_resource MALFORMED_FUNCTION_CALL cancelled"),
    ],
)
def test_each_word_says_what_openai_has_one_for(finish: str, told: str) -> None:
    assert {word: finish_of(word) for word in told.split()} == dict.fromkeys(told.split(), finish)


@pytest.mark.parametrize("told", [None, 5, ["stop"], "", "null", "NONE", "FINISH_REASON_UNSPECIFIED", "not_finished"])
def test_one_that_goes_on_does_not_say_that_it_ended(told: object) -> None:
    assert finish_of(told) is None


@pytest.mark.parametrize("told", ["OTHER", "ran_out_of_luck", "stop it"])
def test_what_nobody_knows_is_no_good_end(told: str) -> None:
    assert finish_of(told) == told


@pytest.mark.parametrize("told", ["eos", "SAFETY", "max_tokens", "abort", "OTHER"])
def test_a_word_that_was_read_once_reads_the_same_again(told: str) -> None:
    assert finish_of(finish_of(told)) == finish_of(told)
