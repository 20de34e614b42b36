"""Training a tiny student for real: it learns, it resumes to the same weights, its shortcuts change nothing."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distiller.config import TrainConfig
from distiller.training.batches import encode, end_of_turn, passes, plan, shared_prefix, tensors
from distiller.training.checkpoints import Checkpoint, RunState
from distiller.training.launch import train
from distiller.training.learner import Learner
from distiller.training.loop import REPORT, read_report, schedule
from distiller.training.methods.hard import HardLabel
from distiller.training.progress import Meter
from distiller.training.student import spread_within_rounding
from router.engine.template import PromptTemplate
from router.errors import TrainingError
from tests.distiller.tiny_student import TEAMS, dataset, row, student

CONFIG = TrainConfig(
    epochs=12, learning_rate=1e-2, batch_size=16, precision="fp32", device="cpu", threads=1, freeze_embeddings=False
)


class Cut(Exception):
    """The run is cut off here."""


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


def prompts(tmp_path: Path, texts: list[str]) -> list:  # type: ignore[type-arg]
    tokenizer = AutoTokenizer.from_pretrained(student(tmp_path / "student"))
    system = {"role": "system", "content": "w1 w2 w3 w4 w5 w6 w7 w8"}
    rows = [row([system, {"role": "user", "content": t}], TEAMS[i % 3], 1.0 + i) for i, t in enumerate(texts)]
    return encode(rows, PromptTemplate(tokenizer), 100)[0]


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_student_learns_what_the_teacher_answers(tmp_path: Path, tuning: str, precision: str) -> None:
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    config = replace(CONFIG, tuning=tuning, precision=precision)
    if tuning == "lora":
        config = replace(config, epochs=30, learning_rate=1.5e-2)
    report = train(config, base, data, tmp_path / "out")
    assert report.dev_loss_before is not None and report.dev_loss is not None
    assert report.dev_loss < 0.35 * report.dev_loss_before
    assert report.precision == precision and not report.resumed and report.rows == data.counts["train"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "w130 w1 w60 w95"}], add_generation_prompt=True, return_tensors="pt"
    )
    said = model.generate(**asked, max_new_tokens=4, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True).split()[0] == "cards"
    assert tuning == "lora" or said[1] == tokenizer.eos_token_id  # adapters on a random base reach less far
    assert (tmp_path / "out" / REPORT).is_file() and not (tmp_path / "out.checkpoint").exists()


def test_a_run_that_was_cut_off_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    config = replace(CONFIG, epochs=2, checkpoint_steps=3)
    whole = train(config, base, data, tmp_path / "whole")
    step = Learner.step

    def cut(self: Learner, *args: object) -> float:
        calls.append(1)
        if len(calls) == 8:
            raise Cut
        return step(self, *args)  # type: ignore[arg-type]

    calls: list[int] = []
    monkeypatch.setattr(Learner, "step", cut)
    with pytest.raises(Cut):
        train(config, base, data, tmp_path / "cut")
    assert (tmp_path / "cut.checkpoint").is_dir() and not (tmp_path / "cut").exists()
    resumed = train(config, base, data, tmp_path / "cut")
    assert resumed.resumed and len(calls) == 8 + whole.steps - 6
    assert (resumed.steps, resumed.tokens, resumed.last_loss) == (whole.steps, whole.tokens, whole.last_loss)
    assert resumed.dev_loss_before == whole.dev_loss_before
    cut_weights = weights_of(tmp_path / "cut")
    assert all(torch.equal(w, cut_weights[name]) for name, w in weights_of(tmp_path / "whole").items())


def test_another_runs_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    learner = Learner(CONFIG, student(tmp_path / "base"), HardLabel())
    learner.step(prompts(tmp_path, ["w9", "w10 w11"]), 1e-3, 0)
    kept, place = tmp_path / "c.checkpoint", learner.place
    Checkpoint(kept, "one run", 60, None, place).save(RunState(step=3), learner.weights, learner.optimizer)
    assert Checkpoint(kept, "another", 60, None, place).resume(learner.weights, learner.optimizer) is None
    found = Checkpoint(kept, "one run", 60, None, place).resume(learner.weights, learner.optimizer)
    assert found is not None and found.step == 3


def test_sharing_a_beginning_changes_neither_loss_nor_gradient(tmp_path: Path) -> None:
    rows = prompts(tmp_path, ["w9", "w9 w10 w11", "w12 w13 w14 w15 w16", "w9 w17"])
    learner = Learner(replace(CONFIG, weight_decay=0.0), tmp_path / "student", HardLabel())
    results = []
    for share in (True, False):
        part = tensors(rows, "cpu", share=share)
        assert (part.prefix is not None) == share
        loss = learner._summed(part)
        loss.backward()
        results.append((loss.detach(), {n: w.grad.clone() for n, w in learner.weights.items() if w.grad is not None}))
        learner.optimizer.zero_grad()
    (shared, shared_grad), (apart, apart_grad) = results
    assert torch.allclose(shared, apart, rtol=1e-5) and shared_grad.keys() == apart_grad.keys()
    assert all(torch.allclose(g, shared_grad[n], atol=1e-4, rtol=1e-4) for n, g in apart_grad.items())


def test_small_passes_make_the_same_step_as_one_large(tmp_path: Path) -> None:
    rows = prompts(tmp_path, [f"w{i} " * (1 + i % 5) for i in range(12)])
    moved = []
    for size in (40, 4096):
        learner = Learner(replace(CONFIG, tokens_per_pass=size), tmp_path / "student", HardLabel())
        loss = learner.step(rows, 1e-3, 0)
        moved.append((loss, [w.detach().clone() for w in learner.weights.values()]))
    assert moved[0][0] == pytest.approx(moved[1][0], rel=1e-5)
    assert all(torch.allclose(a, b, atol=2e-4) for a, b in zip(moved[0][1], moved[1][1], strict=True))


def test_only_answer_tokens_and_the_end_of_turn_are_learnt(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student(tmp_path))
    (row_,), left_out = encode(
        [row([{"role": "user", "content": "w1 w2"}], "cards travel", 2.5)], PromptTemplate(tokenizer), 100
    )
    assert tokenizer.decode(row_.tokens) == "<s> user w1 w2 </s> <s> assistant cards travel </s>"
    part = tensors([row_], "cpu")
    assert tokenizer.decode(part.targets) == "cards travel </s>" and part.weights.tolist() == [2.5] * 3
    assert tokenizer.decode(part.tokens.flatten()[part.at]) == "assistant cards travel"
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id and not left_out


def test_a_row_that_the_template_refuses_or_that_is_too_long_costs_itself_alone(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student(tmp_path))
    tokenizer.chat_template = "{{ raise_exception('no') if messages[0].role == 'system' }}" + tokenizer.chat_template
    asked = {"role": "user", "content": "w1"}
    rows = [row([asked], "cards"), row([{"role": "system", "content": "w2"}, asked], "cards")]
    rows += [row([asked], "travel " * 200), row([asked], "billing </s> cards")]
    made, left_out = encode(rows, PromptTemplate(tokenizer), 100)
    assert left_out == {"refused_by_chat_template": 1, "too_long_to_train_on": 1}
    assert [m.tokens[m.start :].count(tokenizer.eos_token_id) for m in made] == [1, 1]


def test_a_report_of_before_reasons_is_read(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    train(replace(CONFIG, epochs=0.1), base, data, tmp_path / "out")
    told = tmp_path / "out" / "report.json"
    for written, read in ((3, {"too_long_to_train_on": 3}), (0, {})):
        told.write_text(json.dumps({**json.loads(told.read_bytes()), "left_out": written}))
        assert read_report(tmp_path / "out").left_out == read


def test_every_row_is_in_one_pass_within_the_budget(tmp_path: Path) -> None:
    rows = prompts(tmp_path, [f"w{i} " * (1 + i) for i in range(9)])
    parts = list(passes(rows, 60, "cpu"))
    assert sum(p.real_tokens for p in parts) == sum(len(r.tokens) for r in rows)
    assert all(len(p.tokens) == 1 or p.tokens.numel() <= 60 for p in parts) and len(parts) > 2


def test_a_shared_beginning_leaves_every_row_its_last_prompt_token(tmp_path: Path) -> None:
    same = prompts(tmp_path, ["w9", "w9"])
    assert shared_prefix(same) == same[0].start - 1
    assert shared_prefix(same[:1]) == 0


def test_the_plan_uses_every_row_once_an_epoch_and_follows_the_seed(tmp_path: Path) -> None:
    rows = prompts(tmp_path, [f"w{i} " * (1 + i % 7) for i in range(50)])
    steps = plan(rows, 2, 8, seed=1)
    assert len(steps) == 12 and sorted(i for s in steps[:7] for i in s) == list(range(50))
    assert steps == plan(rows, 2, 8, seed=1) != plan(rows, 2, 8, seed=2)
    assert len(plan(rows, 0.01, 8, seed=1)) == 1


def test_frozen_parts_stay_as_they_were(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    config = replace(CONFIG, epochs=1, freeze_embeddings=True, freeze_layers=1, precision="bf16")
    train(config, base, data, tmp_path / "out")
    before, after = weights_of(base), weights_of(tmp_path / "out")
    moved = {name for name, w in before.items() if not torch.equal(w, after[name])}
    assert moved and all(name.startswith(("model.layers.1.", "model.norm")) for name in moved)


def test_noise_within_rounding_changes_no_weight_on_the_grid_and_is_unbiased_off_it() -> None:
    torch.manual_seed(0)
    grid = torch.cat([torch.randn(10_000), torch.tensor([0.0, 1.0, -0.5, 2.0, 1e-30])]).bfloat16().float()
    spread = grid.clone()
    spread_within_rounding(spread)
    assert torch.equal(spread.bfloat16().float(), grid) and not torch.equal(spread, grid) and spread[10_000] == 0
    between = torch.full((100_000,), 1.0 + 2**-7 * 0.3)  # bfloat16's step at 1 is 2**-7
    spread_within_rounding(between)
    up = (between.bfloat16().float() > 1.0).float().mean().item()
    assert up == pytest.approx(0.3, abs=0.01)


def test_the_learning_rate_warms_up_and_falls_to_a_tenth() -> None:
    rates = [schedule(s, 100, 0.1) for s in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.1, abs=0.01)


def test_a_dataset_without_a_row_that_fits_is_refused(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    with pytest.raises(TrainingError, match="no training row of at most 4 tokens"):
        train(replace(CONFIG, max_tokens=4), base, data, tmp_path / "out")


def test_progress_without_a_terminal_is_a_line_every_tenth() -> None:
    lines = io.StringIO()
    with Meter("training", 40, stream=lines) as meter:
        for step in range(1, 41):
            meter.show(step, 1.5, 100)
    assert len(lines.getvalue().splitlines()) == 10 and "step 40/40 · loss 1.500" in lines.getvalue()
