"""Spoiled students, through the real path: trained, exported, served by the real engine, judged, gated. And what
``locum distill evaluate`` tells of them."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from distiller.bundles import STUDENT
from distiller.cli import app
from distiller.config import Configs, EvaluateConfig, TrainConfig
from distiller.rounds.report import RoundReport
from distiller.rounds.round import run_round
from router.contracts.bundles import read_active
from router.contracts.files import weights_of
from router.contracts.records import Record
from router.errors import DatasetError, EngineError
from router.policy.policy import Policy
from router.settings import Settings
from tests.distiller.tickets import TEAMS, make_student, policy_of, traffic, write

WORDS = list(TEAMS)


@dataclass(frozen=True)
class Home:
    """A home with a log, and the policy that rounds in it follow."""

    settings: Settings
    policy: Policy

    def round(self, records: list[Record], **training: Any) -> RoundReport:
        write(self.settings, self.policy, records)
        values: dict[str, Any] = {
            "epochs": 10,
            "learning_rate": 3e-3,
            "precision": "fp32",
            "device": "cpu",
            "threads": 1,
        }
        train = TrainConfig(**(values | {"freeze_embeddings": False} | training))
        configs = Configs(evaluate=EvaluateConfig(max_dev=60, max_holdout=160), train=train)
        return run_round(self.policy, self.settings, configs=configs)

    def beside(self, folder: Path) -> Home:
        """Another home where the same bundle is live, with nothing in its log."""
        home = replace(self.settings, home=folder)
        shutil.copytree(self.settings.home / "bundles", folder / "bundles")
        return replace(self, settings=home)

    @property
    def live(self) -> Path:
        return self.settings.bundles("tickets") / str(read_active(self.settings.bundles("tickets")).bundle)


def policy(student: Path, form: str) -> Policy:
    plain = policy_of(student).model_dump(mode="json", exclude_unset=True)
    plain["student"]["form"] = form
    return Policy.model_validate({**plain, "scorer": {"encoder": "static"}})


def tagged(records: list[Record]) -> list[Record]:
    """Each ticket with its team as the client's task tag."""
    found = []
    for record in records:
        assert record.request is not None
        said = record.request["messages"][0]["content"].split()
        found.append(replace(record, task=next(TEAMS[word] for word in said if word in TEAMS)))
    return found


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Its live student knows all tickets but those for access, which it was taught wrongly."""
    student = make_student(tmp_path_factory.mktemp("tiny"))
    settings = Settings(home=tmp_path_factory.mktemp("home"), cache=tmp_path_factory.mktemp("cache"))
    home = Home(settings, policy(student, "bf16"))
    report = home.round(tagged(traffic(480, 1, lambda word: "billing" if TEAMS[word] == "access" else TEAMS[word])))
    assert report.promoted, report.reasons
    assert report.acceptable_rate is not None and 0.4 < report.acceptable_rate < 0.8
    return home


def test_a_student_trained_on_shuffled_labels_is_rejected(good: Home, tmp_path: Path) -> None:
    rng, home = random.Random(3), good.beside(tmp_path)
    shuffled = tagged(traffic(480, 2, lambda word: TEAMS[rng.choice(WORDS)]))
    report = home.round(shuffled)
    assert not report.promoted
    assert any(r.startswith("form bf16, overall:") and "points worse" in r for r in report.reasons), report.reasons
    assert home.live.name == good.live.name


def test_a_student_that_is_better_overall_but_broken_on_one_slice_is_rejected_for_that_slice(
    good: Home, tmp_path: Path
) -> None:
    home = good.beside(tmp_path)
    report = home.round(tagged(traffic(480, 4, lambda word: "billing" if word == "parcel" else TEAMS[word])))
    assert not report.promoted
    assert report.acceptable_rate is not None and report.incumbent_rate is not None
    assert report.acceptable_rate > report.incumbent_rate
    worse = [r for r in report.reasons if "points worse" in r]
    assert len(worse) == 1 and worse[0].startswith("form bf16, slice task=delivery:"), report.reasons


@pytest.fixture(scope="module")
def outlying(good: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The live student, computing the very same: but in each matrix one column is 4,096 times as large, and what it
    is multiplied by as much smaller. One scale for a row leaves nothing of the rest of it in eight bits."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("outlying") / "student"
    shutil.copytree(good.live / STUDENT, folder)
    [file] = weights_of(folder)
    tensors = load_file(file)
    for name, read in (
        ("input_layernorm", "self_attn.{}_proj:q k v"),
        ("post_attention_layernorm", "mlp.{}_proj:gate up"),
    ):
        pattern, _, parts = read.partition(":")
        for layer in range(2):
            tensors[f"model.layers.{layer}.{name}.weight"][5] /= 4096
            for part in parts.split():
                tensors[f"model.layers.{layer}.{pattern.format(part)}.weight"][:, 5] *= 4096
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(("form", "broken"), [("int8", True), ("bf16", False)])
def test_a_student_broken_only_when_quantised_is_rejected_in_that_form_alone(
    good: Home, outlying: Path, tmp_path: Path, form: str, broken: bool
) -> None:
    """It starts where the incumbent is and hardly learns: only its form can make it worse."""
    home = Home(replace(good.settings, home=tmp_path), policy(outlying, form))
    records = tagged(traffic(480, 5, lambda word: "billing" if TEAMS[word] == "access" else TEAMS[word]))
    report = home.round(records, learning_rate=1e-9, epochs=0.2)
    worse = [r for r in report.reasons if "points worse" in r]
    if broken:
        assert not report.promoted
        assert any(r.startswith("form int8, overall:") for r in worse), report.reasons
    else:
        assert worse == []


class Command:
    def __init__(self, home: Home, folder: Path) -> None:
        self.env = {"LOCUM_HOME": str(home.settings.home), "LOCUM_CACHE": str(home.settings.cache), "COLUMNS": "160"}
        self.policy = folder / "policy.yaml"
        self.policy.write_text(yaml.safe_dump(home.policy.model_dump(mode="json", exclude_unset=True)))
        self.out = folder / "out"

    def __call__(self, *more: str) -> Result:
        given = ["evaluate", "-p", str(self.policy), "--out", str(self.out), *more]
        return CliRunner().invoke(app, given, env=self.env)

    def report(self, *more: str) -> dict[str, Any]:
        ran = self(*more)
        assert ran.exit_code == 0, (ran.output, ran.exception)
        found: dict[str, Any] = json.loads((self.out / "report.json").read_text())
        return found


@pytest.fixture
def evaluate(good: Home, tmp_path: Path) -> Command:
    return Command(good, tmp_path)


def test_the_live_bundle_is_told_by_slice_against_its_parent_and_asked_once(good: Home, evaluate: Command) -> None:
    found = evaluate.report("--adversarial", "30")
    rates = {r["name"]: r["acceptable"][0] for r in found["retention"]}
    assert rates["task=access"] < 0.1 and rates["task=delivery"] > 0.9
    assert found["student"]["parent"] == "the base student" and found["student"]["form"] == "bf16"
    assert found["forgetting"]["slices"][0]["difference"][0] > 0.4
    assert found["adversarial"][0]["n"] > 20
    assert {c["name"] for c in found["calibration"]} >= {"score"}
    assert found["deferral"][0]["auroc"][0] > 0.6
    assert found["gate"]["promoted"] and found["serving"]["seconds_p50"] > 0
    assert "How good is" in (evaluate.out / "report.html").read_text()
    again = evaluate("--adversarial", "30")
    assert "0 of them new" in again.output and "form" not in again.stderr
    assert json.loads((evaluate.out / "report.json").read_text())["retention"] == found["retention"]


def test_the_rounds_own_report_lies_in_the_bundles_folder_and_list_names_it(good: Home, evaluate: Command) -> None:
    found = json.loads((good.live / "report.json").read_text())
    assert found["student"]["name"] == good.live.name and found["gate"]["promoted"]
    shown = CliRunner().invoke(app, ["list", "-p", str(evaluate.policy)], env=evaluate.env).output
    assert f"{good.live.name}/report.html" in shown.replace("\n", "")


def test_a_student_on_disk_is_asked_a_users_own_questions_against_the_live_bundle(
    good: Home, outlying: Path, evaluate: Command, tmp_path: Path
) -> None:
    asked = [{"messages": [{"role": "user", "content": f"kaban {w} lofin"}, {"role": "assistant", "content": t}]}
             for w, t in TEAMS.items()]  # fmt: skip
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(q | {"task": "mine"}) + "\n" for q in asked))
    found = evaluate.report("--student", str(outlying), "--dataset", str(file), "--adversarial", "0")
    assert (found["questions"]["graded"], found["source"]) == (5, str(file))
    assert found["student"]["parent"] == good.live.name and found["adversarial"] == []
    [overall] = found["forgetting"]["slices"]
    assert (overall["forgotten"], overall["gained"]) == (0, 0)


def test_what_is_no_student_or_no_question_is_said_plainly(evaluate: Command, tmp_path: Path) -> None:
    assert isinstance((none := evaluate("--student", str(tmp_path)).exception), EngineError) and "config.json" in str(
        none
    )
    file = tmp_path / "questions.jsonl"
    file.write_text('{"prompt": "hi"}\n')
    wrong = evaluate("--dataset", str(file)).exception
    assert isinstance(wrong, DatasetError) and "line 1" in str(wrong) and '"role": "assistant"' in str(wrong)
    assert isinstance(evaluate("--dataset", str(tmp_path / "missing")).exception, DatasetError)
