"""What other trainers are given, and what a dataset says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distiller.cli import app
from distiller.config import DatasetConfig
from distiller.data import registry
from distiller.data.dataset import Dataset, build, load, scan
from distiller.data.export import write
from distiller.data.tables import NONE, profile
from router.contracts.records import Record, Rights, Usage
from router.errors import DatasetError
from tests.distiller.tiny_student import policy, record

SYSTEM = {"role": "system", "content": "Be brief."}


def conversation(n: int, rights: Rights = Rights.ALLOWED) -> Record:
    base = record(n, "", f"answer {n}", rights=rights, model="m")
    said = [{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": "hi"}]
    asked = {"role": "user", "content": f"question {n}, and nothing else"}
    answer = replace(base.answers[0], usage=Usage(output_tokens=10 * (n + 1)))
    return replace(base, request={"messages": [SYSTEM, *said, asked]}, answers=[answer], task=f"t{n % 2}")


def dataset(folder: Path, rights: Rights = Rights.ALLOWED) -> Dataset:
    records = [conversation(i, rights if i % 2 else Rights.ALLOWED) for i in range(40)]
    return build(records, policy(), folder, DatasetConfig(dev_share=0.3))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def exported(tmp_path: Path, form: str) -> dict[str, object]:
    """The line of request 0."""
    data = build([conversation(0)], policy(), tmp_path / "data", DatasetConfig(dev_share=0.0))
    assert write(data, "train", form, tmp_path / "out.jsonl") == 1
    return lines(tmp_path / "out.jsonl")[0]


def test_trl_is_given_prompt_and_completion_as_messages(tmp_path: Path) -> None:
    assert exported(tmp_path, "trl") == {
        "prompt": [
            SYSTEM,
            {"role": "user", "content": "hello 0"},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": "question 0, and nothing else"},
        ],
        "completion": [{"role": "assistant", "content": "answer 0"}],
    }


@pytest.mark.parametrize(("form", "mark"), [("axolotl", {"training": False}), ("openai", {"weight": 0})])
def test_messages_end_with_the_answer_and_earlier_ones_are_not_to_be_learnt(
    tmp_path: Path, form: str, mark: dict[str, object]
) -> None:
    assert exported(tmp_path, form) == {
        "messages": [
            SYSTEM,
            {"role": "user", "content": "hello 0"},
            {"role": "assistant", "content": "hi", **mark},
            {"role": "user", "content": "question 0, and nothing else"},
            {"role": "assistant", "content": "answer 0"},
        ]
    }


def test_only_what_may_be_trained_on_is_exported_and_the_holdout_never(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", Rights.FORBIDDEN)
    assert any(not row.trainable for row in scan(data.dev)), "dev measures by such rows too"
    for split in ("train", "dev"):
        write(data, split, "openai", tmp_path / f"{split}.jsonl")
        answers = [str(line["messages"][-1]["content"]) for line in lines(tmp_path / f"{split}.jsonl")]  # type: ignore[index]
        assert answers and all(int(answer.split()[1]) % 2 == 0 for answer in answers)
    with pytest.raises(DatasetError, match="the holdout is never trained on"):
        write(data, "holdout", "openai", tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()


def test_a_profile_counts_slices_and_lengths(tmp_path: Path) -> None:
    records = [replace(conversation(i), task="t") for i in range(4)]
    data = build(records, policy(), tmp_path, DatasetConfig(dev_share=0.0))
    found = profile(data)
    assert found.slices["task"]["train"] == {"t": 4} and found.slices["failing kind"]["train"] == {NONE: 4}
    assert found.slices["language"]["train"] == {"en": 4}
    assert found.lengths["train", "answer, tokens"] == (10, 20, 40, 40, 40)
    assert found.lengths["train", "answer, characters"] == (8, 8, 8, 8, 8)


def test_what_a_user_sees_of_a_dataset(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    shown = CliRunner().invoke(app, ["dataset", "show", str(data.folder), "--rows", "2"], env={"COLUMNS": "200"}).output
    assert data.sha256 in shown and "trained on by right: m: allowed" in shown
    assert "by task" in shown and "by language" in shown and "train: answer, tokens" in shown
    assert shown.count("assistant: answer") == 2


def test_an_export_is_remembered_beside_its_dataset(tmp_path: Path) -> None:
    data, home = dataset(tmp_path / "data"), tmp_path / "home"
    ran = CliRunner().invoke(
        app, ["dataset", "export", str(data.folder), "--format", "axolotl"], env={"LOCUM_HOME": str(home)}
    )
    assert ran.exit_code == 0 and "type: chat_template" in ran.output
    assert registry.datasets(home) == [registry.KnownDataset(data.folder, (data.folder / "train.axolotl.jsonl",))]


def test_a_students_own_chat_template_goes_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCUM_HOME", str(tmp_path / "home"))
    data, folder = dataset(tmp_path / "data"), tmp_path / "student"
    folder.mkdir()
    asked = ["dataset", "export", str(data.folder), "--student", str(folder)]
    ran = CliRunner().invoke(app, asked, env={"COLUMNS": "200"})
    assert ran.exit_code == 2 and "has no chat template" in ran.output
    assert not (data.folder / "train.trl.jsonl").exists()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert (data.folder / "train.trl.jinja").read_text() == "{{ messages }}"


def test_a_folder_without_a_dataset_or_with_an_older_one_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="dataset build` makes one"):
        load(tmp_path)
    (tmp_path / "dataset.json").write_text('{"sha256": "x"}')
    with pytest.raises(DatasetError, match="has version 1, this Locum reads 2; build it again"):
        load(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"torn")
    with pytest.raises(DatasetError, match="cannot be read"):
        next(scan(tmp_path / "train.parquet"))
