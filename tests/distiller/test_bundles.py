"""Bundles on disk: whole or not there, sorted by time, thinned out without ever losing what is live."""

from __future__ import annotations

import json
import stat
from decimal import Decimal
from pathlib import Path

import pytest

from distiller.bundles import (
    ANSWERS,
    Draft,
    has_weights,
    manifests,
    new_id,
    prune,
    round_cost_usd,
    same_student,
    weights_sha256,
    write_bundle,
)
from router.contracts.bundles import DatasetRef, Manifest, Thresholds, activate, read_manifest
from router.contracts.records import Signals
from router.errors import BundleError
from router.policy.policy import Policy
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract


def policy(**student: str) -> Policy:
    return Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "base-model", **(student or {"engine": "embedded"})}
            | {"usd_per_million": {"input": 0, "output": 0}},
            "teacher": {"model": "t"},
            "objective": {"student_share": 0.5},
            "distil": {"usd_per_hour": 1.2},
        }
    )


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    signals = Signals(
        tokens=3, sum_logprob=-1, mean_logprob=-0.3, min_logprob=-0.5, first_logprob=-0.1,
        q10_logprob=-0.4, q25_logprob=-0.3, q50_logprob=-0.2,
    )  # fmt: skip
    words = ["refund the order", "write a novel", "reset my password", "prove the theorem"]
    texts = [f"{words[i % 4]} {i}" for i in range(80)]
    features = [extract({"messages": [{"role": "user", "content": t}]}) for t in texts]
    return Scorer.fit([Example(f, signals, i % 2 == 0) for i, f in enumerate(features)], None)


def a_student(folder: Path, content: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(content)
    return folder


def a_draft(scorer: Scorer, **changes: object) -> Draft:
    dataset = DatasetRef(sha256="d" * 64, train=2, dev=1, holdout=1)
    values = {"scorer": scorer, "thresholds": Thresholds(route=0.5, accept=0.5), "dataset": dataset} | changes
    return Draft(**values)  # type: ignore[arg-type]


def publish(tmp: Path, scorer: Scorer, at: float, content: bytes = b"weights", **changes: object) -> Manifest:
    student = tmp / f"work-{at}"
    a_student(student, content)
    return write_bundle(tmp / "bundles", policy(), a_draft(scorer, student=student, **changes), now=at)


def test_a_bundle_holds_student_scorer_and_the_ids_it_was_trained_on(tmp_path: Path, scorer: Scorer) -> None:
    rows = tmp_path / "train.jsonl"
    rows.write_text('{"request_id": "a", "messages": "private"}\n{"request_id": "b", "messages": "private"}\n')
    answers = tmp_path / "answers.jsonl"
    answers.write_text("{}\n")
    gguf = tmp_path / "student.gguf"
    gguf.write_bytes(b"gguf")
    made = publish(tmp_path, scorer, 1e9, gguf=gguf, trained_on=rows, answers=answers, train_seconds=60, seconds=90)
    folder = tmp_path / "bundles" / made.bundle_id
    assert read_manifest(tmp_path / "bundles", made.bundle_id) == made
    assert made.seal is not None
    assert (folder / "student" / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "student.gguf").read_bytes() == b"gguf"
    assert (folder / ANSWERS).is_file()
    assert Scorer.load(folder / made.scorer, None).score(extract({"messages": []})) >= 0
    ids = [json.loads(line) for line in (folder / "dataset" / "train.jsonl").read_text().splitlines()]
    assert ids == [{"request_id": "a"}, {"request_id": "b"}]
    assert made.student.sha256 == weights_sha256(folder / "student")
    assert Decimal(made.cost_usd) == Decimal("0.03")


def test_a_bundle_is_its_owners_alone_wherever_its_files_come_from(tmp_path: Path, scorer: Scorer) -> None:
    answers, gguf = tmp_path / "answers.jsonl", tmp_path / "student.gguf"
    for file in (answers, gguf):
        file.write_text("{}\n")
        file.chmod(0o666)
    made = publish(tmp_path, scorer, 1e9, gguf=gguf, answers=answers)
    folder = tmp_path / "bundles" / made.bundle_id
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()} == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (folder, *folder.rglob("*")) if p.is_dir()} == {0o700}


def test_a_write_that_fails_midway_leaves_no_bundle_and_is_cleared_away(tmp_path: Path, scorer: Scorer) -> None:
    with pytest.raises(FileNotFoundError):
        publish(tmp_path, scorer, 1e9, trained_on=tmp_path / "missing.jsonl")
    assert manifests(tmp_path / "bundles") == []
    assert len(prune(tmp_path / "bundles")) == 1
    assert list((tmp_path / "bundles").iterdir()) == []


def test_ids_sort_by_time() -> None:
    ids = [new_id(1_800_000_000 + 60 * i, "x") for i in range(50)]
    assert ids == sorted(ids)
    assert ids[0].startswith("20270115-080000-")


def test_pruning_keeps_the_newest_and_always_what_is_live_and_was_before(tmp_path: Path, scorer: Scorer) -> None:
    bundles = tmp_path / "bundles"
    made = [publish(tmp_path, scorer, 1e9 + i, f"{i}".encode()).bundle_id for i in range(6)]
    activate(bundles, made[1])
    activate(bundles, made[0])
    assert prune(bundles, keep=2) == [made[2], made[3]]
    kept = [m.bundle_id for m in manifests(bundles) if has_weights(bundles, m)]
    assert kept == [made[0], made[1], made[4], made[5]]
    assert len(manifests(bundles)) == 6


def test_pruning_a_bundle_leaves_the_weights_of_one_that_shares_them(tmp_path: Path, scorer: Scorer) -> None:
    bundles = tmp_path / "bundles"
    first = publish(tmp_path, scorer, 1e9)
    tuned = write_bundle(bundles, policy(), a_draft(scorer, student=bundles / first.bundle_id / "student"), now=1e9 + 1)
    activate(bundles, None)
    assert prune(bundles, keep=1) == [first.bundle_id]
    assert (bundles / tuned.bundle_id / "student" / "model.safetensors").read_bytes() == b"weights"


def test_versions_with_the_same_weights_are_the_same_student(tmp_path: Path, scorer: Scorer) -> None:
    bundles = tmp_path / "bundles"
    first = publish(tmp_path, scorer, 1e9).bundle_id
    tuned = publish(tmp_path, scorer, 1e9 + 1).bundle_id
    other = publish(tmp_path, scorer, 1e9 + 2, b"others").bundle_id
    on_base = write_bundle(bundles, policy(), a_draft(scorer), now=1e9 + 3).bundle_id
    assert same_student(bundles, tuned) == {first, tuned}
    assert same_student(bundles, other) == {other}
    assert same_student(bundles, None) == {"base", on_base}
    assert same_student(bundles, on_base) == {"base", on_base}


def test_a_server_by_url_lists_a_trained_student_under_its_bundles_name(tmp_path: Path, scorer: Scorer) -> None:
    by_url = policy(url="http://localhost:1/v1")
    trained = write_bundle(tmp_path / "b", by_url, a_draft(scorer, student=a_student(tmp_path / "s")), now=1e9)
    assert trained.student.model == trained.bundle_id
    assert write_bundle(tmp_path / "b", by_url, a_draft(scorer), now=1e9 + 1).student.model == "base-model"


def test_a_student_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no safetensors"):
        weights_sha256(tmp_path)


def test_a_round_costs_what_its_machine_costs_for_as_long_as_it_ran() -> None:
    assert round_cost_usd(1800, policy()) == Decimal("0.6")
