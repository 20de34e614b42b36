"""Recorded passes learn what computed ones do. Only a GPU records; elsewhere that is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distiller.config import TrainConfig
from distiller.training.batches import EncodedRow
from distiller.training.capture import UNRECORDED, RecordedPass
from distiller.training.learner import Learner
from distiller.training.methods.confidence import Confidence
from distiller.training.methods.hard import HardLabel

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ROWS = [EncodedRow(tuple((7 * n + 3 * i) % 1000 for i in range(12 + n % 40)), 6, 1.0) for n in range(240)]
STEPS = [ROWS[i : i + 40] for i in range(0, 240, 40)]
PLAIN = TrainConfig(
    device="cuda", freeze_embeddings=False, tokens_per_pass=512, packing=False, compile=False, cuda_graphs=False
)


def base(folder: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def learnt(folder: Path, config: TrainConfig, method: Any) -> tuple[list[float], Learner]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    learner = Learner(config, folder, method)
    learner.expect(STEPS)
    return [learner.step(rows, 1e-3, n) for n, rows in enumerate(STEPS)], learner


def test_a_pass_that_cannot_be_recorded_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    for name in ("CUDAGraph", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", refused)
    folder, config = base(tmp_path), replace(PLAIN, device="cpu", packing=True, precision="fp32", threads=1)
    expected, learner = learnt(folder, config, HardLabel())
    again = RecordedPass(learner._backward)
    losses = []
    for rows in STEPS:
        parts = list(learner._passes(rows, rows[0]))
        losses.append([again(part, 2.0).item() - learner._backward(part, 2.0).item() for part in parts])
    assert not again.works and len(losses) > UNRECORDED and not any(any(found) for found in losses)
    assert len(expected) == len(STEPS)


@on_a_gpu
@pytest.mark.parametrize("method", [HardLabel(), Confidence(doubt=0.1)])
@pytest.mark.parametrize(
    "how", [{}, {"compile": True}, {"freeze_embeddings": True}, {"tuning": "lora"}, {"compile": True, "tuning": "lora"}]
)
def test_recorded_passes_learn_what_computed_ones_do(tmp_path: Path, how: dict[str, Any], method: Any) -> None:
    folder = base(tmp_path)
    expected, _ = learnt(folder, replace(PLAIN, **{**how, "compile": False}), method)
    found, learner = learnt(folder, replace(PLAIN, packing=True, cuda_graphs=True, **how), method)
    assert learner._recorded is not None and learner._recorded.works and learner._recorded._graph is not None
    assert found == pytest.approx(expected, rel=5e-3)


@on_a_gpu
def test_activations_computed_twice_change_nothing(tmp_path: Path) -> None:
    folder, config = base(tmp_path), replace(PLAIN, packing=True, compile=True)
    once, twice = (learnt(folder, replace(config, activation_checkpointing=a), HardLabel())[0] for a in (False, True))
    assert twice == pytest.approx(once, rel=1e-3)
