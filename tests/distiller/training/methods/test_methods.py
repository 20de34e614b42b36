"""Every method teaches a tiny student through the whole loop, and says so where it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distiller.config import TrainConfig
from distiller.data.dataset import Dataset, build
from distiller.training.batches import EncodedRow, encode, end_of_turn, tensors
from distiller.training.launch import train
from distiller.training.learner import Learner
from distiller.training.loop import TrainReport
from distiller.training.methods.factory import make
from distiller.training.methods.feature import Feature, even
from distiller.training.methods.on_policy import OnPolicy
from distiller.training.methods.reasoning import Reasoning, parted
from distiller.training.outputs import answers
from router.contracts.logprobs import Position, packed
from router.engine.template import PromptTemplate
from router.errors import TrainingError
from router.policy.distillation import (
    ConfidenceSettings,
    FeatureSettings,
    HardLabelSettings,
    OnPolicySettings,
    ProgressiveSettings,
    ReasoningSettings,
    SoftLabelSettings,
)
from tests.distiller.tiny_student import TEAMS, dataset, policy, routing_records, row, student

CONFIG = TrainConfig(
    epochs=4, learning_rate=1e-2, batch_size=16, precision="fp32", device="cpu", threads=1, freeze_embeddings=False
)


def fell(report: TrainReport, to: float) -> bool:
    assert report.dev_loss_before is not None and report.dev_loss is not None
    return report.dev_loss < to * report.dev_loss_before


def told_dataset(folder: Path) -> Dataset:
    """Answers that came with their likeliest tokens: 0.7 on the team, 0.2 on the next one, 0.1 untold."""
    records = routing_records(120)
    for n, made in enumerate(records):
        team, other = TEAMS[n % 3].encode(), TEAMS[(n + 1) % 3].encode()
        told = [Position(team, -0.357, ((team, -0.357), (other, -1.609))), Position(b"</s>", 0.0, ((b"</s>", 0.0),))]
        made.answers[0].top_logprobs = packed(told)
    return build(records, policy(), folder)


def probabilities(folder: Path, prompt: str) -> dict[str, float]:
    """The teams' probabilities as a trained student's first token."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        said = model(**asked).logits[0, -1].float().softmax(-1)
    return {team: float(said[tokenizer.convert_tokens_to_ids(team)]) for team in TEAMS}


def encoded(folder: Path, texts: list[str], answer: str = "cards") -> list[EncodedRow]:
    rows = [row([{"role": "user", "content": t}], answer) for t in texts]
    return encode(rows, PromptTemplate(AutoTokenizer.from_pretrained(folder)), 100)[0]


def test_soft_labels_bring_a_student_to_its_open_weight_teacher(tmp_path: Path) -> None:
    teacher, base, data = student(tmp_path / "teacher", seed=1), student(tmp_path / "base"), dataset(tmp_path / "data")
    settings = SoftLabelSettings(teacher=str(teacher), mix=1.0, temperature=2.0, divergence="skewed", mixed=0.1)
    assert fell(train(replace(CONFIG, method=settings, epochs=8), base, data, tmp_path / "out"), 0.4)


def test_a_student_that_is_its_own_teacher_has_nothing_to_learn(tmp_path: Path) -> None:
    base = student(tmp_path / "base")
    for kind in ("forward", "reverse", "jsd", "skewed", "skewed-reverse"):
        settings = SoftLabelSettings(teacher=str(base), mix=1.0, divergence=kind)  # type: ignore[arg-type]
        learner = Learner(CONFIG, base, make(replace(CONFIG, method=settings), base))
        loss = learner.loss(encoded(base, ["w1 w2", "w3"]))
        assert loss is not None and abs(loss) < 1e-5


@pytest.mark.parametrize("rest", ["tail", "sampled"])
def test_recorded_probabilities_are_learnt_beyond_the_text(tmp_path: Path, rest: str) -> None:
    base, data = student(tmp_path / "base"), told_dataset(tmp_path / "data")
    settings = SoftLabelSettings(teacher="recorded", mix=1.0, rest=rest, alignment="exact")  # type: ignore[arg-type]
    report = train(replace(CONFIG, method=settings, epochs=16), base, data, tmp_path / "out")
    said = probabilities(tmp_path / "out", "w130 w1 w60 w95")
    assert report.dev_loss is not None and said["cards"] > said["travel"] > 0.05 > 0.5 * said["billing"]
    assert 0.5 < said["cards"] < 0.93


def test_the_students_own_answers_are_drawn_by_seed_and_step_alone(tmp_path: Path) -> None:
    teacher, base = student(tmp_path / "teacher", seed=1), student(tmp_path / "base")
    settings = OnPolicySettings(teacher=str(teacher), share=0.5, max_new_tokens=6)
    method = make(replace(CONFIG, method=settings), base)
    model = AutoModelForCausalLM.from_pretrained(base).train()
    rows = encoded(base, [f"w{i} " * (1 + i % 4) for i in range(20)])
    torch.manual_seed(5)
    first = method.rows(rows, 3, model)
    torch.manual_seed(6)
    after = torch.rand(1)
    assert method.rows(rows, 3, model) == first != method.rows(rows, 4, model) and model.training
    torch.manual_seed(6)
    method.rows(rows, 3, model)
    assert torch.equal(torch.rand(1), after)  # whoever draws beside it notices nothing
    own = [i for i, (a, b) in enumerate(zip(rows, first, strict=True)) if a != b]
    assert 4 <= len(own) <= 16
    end = end_of_turn(AutoTokenizer.from_pretrained(base))
    for i in own:
        assert first[i].tokens[: first[i].start] == rows[i].tokens[: rows[i].start]
        answer = first[i].tokens[first[i].start :]
        assert 1 <= len(answer) <= 6 and end not in answer[:-1] and (len(answer) == 6 or answer[-1] == end)


def test_on_policy_reaches_its_teacher_and_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, base, data = (
        student(tmp_path / "teacher", seed=1),
        student(tmp_path / "base"),
        dataset(tmp_path / "data", 60),
    )
    settings = OnPolicySettings(teacher=str(teacher), share=0.7, divergence="reverse", max_new_tokens=4)
    config = replace(CONFIG, method=settings, epochs=6, checkpoint_steps=5)
    assert fell(train(config, base, data, tmp_path / "whole"), 0.7)
    step, calls = Learner.step, []

    def cut(self: Learner, *args: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return step(self, *args, **named)

    monkeypatch.setattr(Learner, "step", cut)
    with pytest.raises(KeyboardInterrupt):
        train(config, base, data, tmp_path / "cut")
    assert train(config, base, data, tmp_path / "cut").resumed
    whole, again = (AutoModelForCausalLM.from_pretrained(tmp_path / n).state_dict() for n in ("whole", "cut"))
    assert all(torch.equal(w, again[name]) for name, w in whole.items())


def test_features_bring_hidden_states_to_the_teachers(tmp_path: Path) -> None:
    teacher, base, data = student(tmp_path / "teacher", seed=1), student(tmp_path / "base"), dataset(tmp_path / "data")
    settings = FeatureSettings(teacher=str(teacher), weight=10.0, mix=1.0)
    assert fell(train(replace(CONFIG, method=settings), base, data, tmp_path / "out"), 0.6)


def test_features_of_the_student_itself_are_no_distance_and_projections_learn(tmp_path: Path) -> None:
    base = student(tmp_path / "base")
    method = make(replace(CONFIG, method=FeatureSettings(teacher=str(base), mix=1.0)), base)
    assert isinstance(method, Feature) and method.layers == (1, 2) and method.pairs == ((1, 1), (2, 2))
    rows = encoded(base, ["w1 w2", "w3"])
    learner = Learner(CONFIG, base, method)
    loss = learner.loss(rows)
    assert loss is not None and loss < 1e-5
    learner.model.get_decoder().layers[0].mlp.down_proj.weight.data.mul_(3)
    before = method.parameters["projection.1-1"].detach().clone()
    learner.step(rows, 1e-2, 0)
    assert not torch.equal(method.parameters["projection.1-1"], before)


def test_layers_map_evenly_and_only_onto_layers_that_are_there(tmp_path: Path) -> None:
    assert even(3, 12) == ((1, 4), (2, 8), (3, 12)) and even(2, 1) == ((1, 1), (2, 1))
    base = student(tmp_path / "base")
    settings = FeatureSettings(teacher=str(base), layers=((1, 3),))
    with pytest.raises(TrainingError, match=r"layer 1 of the student and 3 of the teacher .* have 2 and 2"):
        make(replace(CONFIG, method=settings), base)


def test_confidence_trains_and_doubts_what_cannot_be_known(tmp_path: Path) -> None:
    base, data = student(tmp_path / "base"), dataset(tmp_path / "data")
    report = train(replace(CONFIG, method=ConfidenceSettings(doubt=0.1), epochs=12), base, data, tmp_path / "out")
    assert fell(report, 0.5)


def test_a_rationale_is_parted_from_its_answer_however_it_came() -> None:
    asked = [{"role": "user", "content": "2 + 2 + 3?"}]
    assert parted(replace(row(asked, "7"), rationale=" 4 + 3 ")) == ("4 + 3", "7")
    assert parted(row(asked, "<think>\n4 + 3\n</think>\n\n7")) == ("4 + 3", "7")
    assert parted(row(asked, "2 + 2 is 4.\n4 + 3 is 7.\n#### 7\n")) == ("2 + 2 is 4.\n4 + 3 is 7.", "#### 7")
    assert parted(row(asked, "#### 7")) == ("", "#### 7")
    assert parted(row(asked, "# A\n#### B\nmore text")) == ("", "# A\n#### B\nmore text")


def test_both_tasks_of_a_rationale_begin_alike_and_weigh_the_same(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student(tmp_path))
    rows = [replace(row([{"role": "user", "content": "w1 w2"}], "cards", 2.0), rationale="w3 w4 w5 w6")]
    rows += [row([{"role": "user", "content": "w9"}], "travel")]
    made, left_out = Reasoning("w0 w0", 0.5).encode(rows, PromptTemplate(tokenizer), 100)
    said = [tokenizer.decode(m.tokens[m.start :]) for m in made]
    assert said == ["cards </s>", "w3 w4 w5 w6 cards </s>", "travel </s>"] and not left_out
    assert tokenizer.decode(made[1].tokens[: made[1].start]) == "<s> user w1 w2 w0 w0 </s> <s> assistant"
    direct, worked, bare = (m.weight * m.answer_tokens for m in made)
    assert worked == pytest.approx(0.5 * direct) and direct == 4.0 and bare == 2.0
    assert tokenizer.decode(made[0].tokens[: made[0].start]) == "<s> user w1 w2 </s> <s> assistant"
    short, left_out = Reasoning("w0 w0", 0.5).encode(rows, PromptTemplate(tokenizer), 9)
    assert len(short) == 2 and not left_out  # the worked one is too long, and the answer is still learnt


def test_a_later_split_may_have_no_rationale(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student(tmp_path))
    bare = row([{"role": "user", "content": "w1"}], "cards")
    method = Reasoning("w0", 1.0)
    method.encode([replace(bare, rationale="w3")], PromptTemplate(tokenizer), 100)
    assert len(method.encode([bare], PromptTemplate(tokenizer), 100)[0]) == 1
    with pytest.raises(TrainingError, match="no answer holds a rationale"):
        Reasoning("w0", 1.0).encode([bare], PromptTemplate(tokenizer), 100)


def test_a_student_that_learnt_reasoning_answers_at_once_unless_it_is_asked_to_think(tmp_path: Path) -> None:
    records = routing_records(120)
    for made in records:
        assert made.answers[0].message is not None
        made.answers[0].message["reasoning_content"] = "w7 w8"
    base, data = student(tmp_path / "base"), build(records, policy(), tmp_path / "data")
    config = replace(CONFIG, method=ReasoningSettings(marker="w199"), epochs=12)
    assert fell(train(config, base, data, tmp_path / "out"), 0.5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")

    def said(prompt: str) -> list[str]:
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        new = model.generate(**asked, max_new_tokens=5, do_sample=False)[0, asked["input_ids"].shape[1] :]
        return str(tokenizer.decode(new, skip_special_tokens=True)).split()

    assert said("w130 w1 w60 w95") == ["cards"] and said("w130 w1 w60 w95\n\nw199") == ["w7", "w8", "cards"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (SoftLabelSettings(teacher="/nowhere"), "must be a folder with a model"),
        (SoftLabelSettings(teacher="recorded", temperature=2.0), "temperature must be 1"),
        (SoftLabelSettings(teacher="recorded", rest="sampled", divergence="jsd"), "jsd needs rest: tail"),
        (SoftLabelSettings(teacher="http://localhost:1/v1", rest="sampled"), "drew itself"),
        (SoftLabelSettings(teacher="http://localhost:1/v1"), "cannot be asked"),
        (SoftLabelSettings(teacher="recorded"), "no row carries its teacher's likeliest tokens"),
        (ReasoningSettings(), "no answer holds a rationale"),
        (ProgressiveSettings(layers=(1,)), "a chain of trainings"),
    ],
    ids=str,
)
def test_what_cannot_be_learnt_is_said_before_the_first_step(tmp_path: Path, settings: Any, says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        train(
            replace(CONFIG, method=settings), student(tmp_path / "base"), dataset(tmp_path / "data"), tmp_path / "out"
        )


def test_a_teacher_with_another_tokenizer_is_refused_by_name_and_with_a_way_out(tmp_path: Path) -> None:
    base, teacher = student(tmp_path / "base"), student(tmp_path / "teacher")
    file = teacher / "tokenizer.json"
    file.write_text(file.read_text().replace('"w7"', '"x7"'))
    for settings in (
        SoftLabelSettings(teacher=str(teacher)),
        OnPolicySettings(teacher=str(teacher)),
        FeatureSettings(teacher=str(teacher)),
    ):
        with pytest.raises(TrainingError, match=f"{base}.* is not .*{teacher}.*hard-label, reasoning, confidence"):
            make(replace(CONFIG, method=settings), base)
    assert make(replace(CONFIG, method=HardLabelSettings()), base).parameters == {}


def test_a_teacher_sees_the_same_beginning_shared_or_apart(tmp_path: Path) -> None:
    teacher, base = student(tmp_path / "teacher", seed=1), student(tmp_path / "base")
    method = make(replace(CONFIG, method=OnPolicySettings(teacher=str(teacher))), base)
    assert isinstance(method, OnPolicy)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    rows = encoded(base, [f"w1 w2 w3 w4 w5 w6 w7 w8 w{i}" for i in range(4)])
    losses = []
    for share in (True, False):
        part = tensors(rows, "cpu", share=share)
        assert (part.prefix is not None) == share
        losses.append(method.loss(answers(model, part, model.get_output_embeddings().weight), part).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
