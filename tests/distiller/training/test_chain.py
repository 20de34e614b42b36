"""A chain of shrinking students: what is cut, what each learns from, and that a chain cut off goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from distiller.config import TrainConfig
from distiller.training import chain
from distiller.training.batches import encode
from distiller.training.chain import chained, depth, even, influence, shrink
from distiller.training.launch import train
from distiller.training.loop import read_report
from router.engine.template import PromptTemplate
from router.errors import TrainingError
from router.policy.distillation import HardLabelSettings, ProgressiveSettings, SoftLabelSettings
from tests.distiller.tiny_student import dataset, row, student
from tests.distiller.trainings import cut_in_second_training

CONFIG = TrainConfig(
    epochs=2, learning_rate=1e-2, batch_size=16, precision="fp32", device="cpu", threads=1, freeze_embeddings=False
)


def deep(folder: Path, layers: int = 4) -> Path:
    """The tiny student with more layers."""
    student(folder)
    config = LlamaConfig.from_pretrained(folder)
    config.num_hidden_layers = layers
    torch.manual_seed(1)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def test_the_layers_kept_are_the_ones_asked_for_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    base = deep(tmp_path / "base")
    shrink(base, tmp_path / "cut", [0, 3])
    assert depth(tmp_path / "cut") == 2
    whole, cut = (AutoModelForCausalLM.from_pretrained(f) for f in (base, tmp_path / "cut"))
    for ours, theirs in ((0, 0), (1, 3)):
        kept = dict(whole.model.layers[theirs].named_parameters())
        assert all(torch.equal(p, kept[n]) for n, p in cut.model.layers[ours].named_parameters())
    assert torch.equal(whole.model.embed_tokens.weight, cut.model.embed_tokens.weight)
    assert cut.dtype == torch.bfloat16 and AutoTokenizer.from_pretrained(tmp_path / "cut").chat_template


def test_layers_are_spread_evenly_from_the_first_to_the_last() -> None:
    assert even(4, 10) == [0, 3, 6, 9] and even(2, 30) == [0, 29] and even(1, 5) == [0] and even(3, 3) == [0, 1, 2]


def test_a_layer_that_changes_nothing_has_no_influence(tmp_path: Path) -> None:
    base = deep(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    for part in (model.model.layers[2].self_attn.o_proj, model.model.layers[2].mlp.down_proj):
        part.weight.data.zero_()
    model.save_pretrained(base)
    rows, _ = encode(
        [row([{"role": "user", "content": "w1 w2"}], "cards")], PromptTemplate(AutoTokenizer.from_pretrained(base)), 100
    )
    changes = influence(base, rows)
    assert len(changes) == 4 and abs(changes[2]) < 1e-6 and min(changes[:2] + changes[3:]) > 0.01


@pytest.mark.parametrize("keep", ["even", "influence"])
def test_each_student_of_the_chain_learns_from_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    base, data = deep(tmp_path / "base"), dataset(tmp_path / "data", 60)
    seen: list[tuple[Any, int, str]] = []
    took: list[Any] = []

    def watched(config: TrainConfig, start: Path, data: Any, out: Path) -> Any:
        seen.append((config.method, depth(start), out.name))
        took.append(train(config, start, data, out))
        return took[-1]

    monkeypatch.setattr(chain, "train", watched)
    settings = ProgressiveSettings(layers=(4, 3, 2), keep=keep, divergence="reverse", mix=0.7)  # type: ignore[arg-type]
    report = chained(replace(CONFIG, method=settings), base, data, tmp_path / "out")
    (first, *_), (second, *_), (third, *_) = seen
    assert [(layers, name) for _, layers, name in seen] == [(4, "4-layers"), (3, "3-layers"), (2, "out")]
    assert (
        first == HardLabelSettings() and isinstance(second, SoftLabelSettings) and isinstance(third, SoftLabelSettings)
    )
    assert second.teacher.endswith("4-layers") and third.teacher.endswith("3-layers")
    assert (third.divergence, third.mix) == ("reverse", 0.7)
    assert report.folder == tmp_path / "out" and depth(report.folder) == 2
    assert report.steps == sum(r.steps for r in took) == 3 * took[0].steps
    assert (report.tokens, report.seconds) == (sum(r.tokens for r in took), sum(r.seconds for r in took))
    assert read_report(report.folder) == report
    assert (
        report.dev_loss is not None and report.dev_loss_before is not None and report.dev_loss < report.dev_loss_before
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "data", "out"]


def test_a_chain_that_was_cut_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = deep(tmp_path / "base"), dataset(tmp_path / "data", 60)
    config = replace(CONFIG, method=ProgressiveSettings(layers=(3, 2)))
    chained(config, base, data, tmp_path / "whole")
    runs = cut_in_second_training(monkeypatch, chain)
    with pytest.raises(KeyboardInterrupt):
        chained(config, base, data, tmp_path / "out")
    chained(config, base, data, tmp_path / "out")
    assert runs == ["3-layers", "out", "out"]
    whole, again = (AutoModelForCausalLM.from_pretrained(tmp_path / n).state_dict() for n in ("whole", "out"))
    assert all(torch.equal(w, again[name]) for name, w in whole.items())


def test_a_student_that_is_down_the_chain_already_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, data = deep(tmp_path / "base", 2), dataset(tmp_path / "data", 60)
    runs: list[Any] = []

    def watched(config: TrainConfig, start: Path, data: Any, out: Path) -> Any:
        runs.append((config.method, start))
        return train(config, start, data, out)

    monkeypatch.setattr(chain, "train", watched)
    chained(replace(CONFIG, method=ProgressiveSettings(layers=(3, 2))), base, data, tmp_path / "out")
    assert runs == [(HardLabelSettings(), base)] and depth(tmp_path / "out") == 2
    with pytest.raises(TrainingError, match="the student has 2 layers, fewer than any"):
        chained(replace(CONFIG, method=ProgressiveSettings(layers=(4, 3))), base, data, tmp_path / "other")


@pytest.mark.parametrize("layers", [(), (3, 3), (2, 3), (0,)])
def test_a_chain_that_does_not_shrink_is_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="layers"):
        ProgressiveSettings(layers=layers)


def test_a_chain_may_be_written_as_in_a_command() -> None:
    assert ProgressiveSettings(layers="20,12").layers == (20, 12)  # type: ignore[arg-type]
