"""How long a pass may be, and how much is computed twice, by what a GPU has left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distiller.config import TrainConfig
from distiller.training import memory
from distiller.training.student import tuned
from tests.distiller import tiny_student

GB = 10**9


def large() -> LlamaForCausalLM:
    """The shape of a model of 7B weights in bfloat16, without them."""
    config = LlamaConfig(
        hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        vocab_size=152_064, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        return LlamaForCausalLM(config).to(torch.bfloat16)


def test_what_is_left_decides_over_tokens_and_over_what_is_computed_twice() -> None:
    model, found = large(), []
    for free in (8, 16, 24, 32, 64, 10_000):
        tokens, every = memory.fitting(model, {}, free * GB, 8192, kept=False)
        found.append((tokens, every))
        assert 0 < tokens <= memory.PAYS and (tokens >= 8192 or every == 1)
    assert found[-1] == (memory.PAYS, 0) and found[0][1] == 1
    shares = [1 / every if every else 0 for _, every in found]
    assert shares == sorted(shares, reverse=True) and len(set(shares)) > 2  # less memory, more of it twice


def test_a_row_may_be_longer_than_pays() -> None:
    assert memory.fitting(large(), {}, 10_000 * GB, 100_000, kept=False) == (100_000, 0)


def test_where_nothing_may_be_computed_twice_passes_are_short() -> None:
    model = large()
    short, none = memory.fitting(model, {}, 24 * GB, 8192, kept=True)
    assert 0 < short < 8192 and none == 0


def test_what_learns_takes_room_for_its_optimiser() -> None:
    model = large()
    moving = {"w": torch.empty(10**9, device="meta")}
    free, less = (memory.fitting(model, moving_, 40 * GB, 1024, kept=True)[0] for moving_ in ({}, moving))
    assert less < 0.8 * free


@pytest.mark.parametrize("missing", ["head_dim", "num_key_value_heads"])
def test_a_configuration_that_does_not_say_all_is_guessed(missing: str) -> None:
    model = large()
    setattr(model.config, missing, None)
    assert memory.fitting(model, {}, 64 * GB, 1024, kept=False)[0] >= 1024


def test_a_large_students_adapters_learn_unless_all_weights_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_student.student(tmp_path)
    assert tuned(TrainConfig(), base).tuning == "full"
    monkeypatch.setattr("distiller.training.student.ADAPTED_FROM", 10_000)
    assert tuned(TrainConfig(), base).tuning == "lora"
    assert tuned(TrainConfig(tuning="full"), base).tuning == "full"
