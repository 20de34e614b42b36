"""Every form of a real student is one that its engine loads and answers from; and people can write them by hand."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distiller.bundles import StudentFiles
from distiller.cli import app
from distiller.evaluation.engine import NAME, serving
from distiller.forms.export import export
from router.contracts.bundles import INT8_WEIGHTS, StudentRef
from router.engine.llama_server import find_binary
from router.engine.weights import base_student
from router.errors import BundleError, EngineError, TrainingError
from router.policy.engines import ENGINES, GGUF_FORMS, GgufForm, form_of
from router.settings import Settings
from tests.distiller.tiny_student import policy, student
from tests.manifests import complete

SMOL = "smollm2-135m-instruct"
CAPITAL = "What is the capital city of France? Answer in English."


def asked(url: str) -> str:
    body = {"model": NAME, "messages": [{"role": "user", "content": CAPITAL}], "max_tokens": 24, "temperature": 0}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return str(json.loads(answer.read())["choices"][0]["message"]["content"])


@pytest.mark.parametrize("form", GGUF_FORMS)
def test_llama_server_answers_from_every_gguf(tmp_path: Path, form: GgufForm) -> None:
    cache = Settings.from_env().cache
    try:
        find_binary(cache)
    except EngineError as e:
        pytest.skip(str(e))
    trained = base_student(SMOL, cache)
    gguf = export(trained, form, tmp_path / "student.gguf", SMOL)
    with serving(StudentFiles(trained, gguf), "llama-server", tmp_path / "log") as url:
        assert "Paris" in asked(url)
    whole = (trained / "model.safetensors").stat().st_size
    assert gguf.stat().st_size < {"q8_0": 0.56, "q4_0": 0.40}[form] * whole


def test_the_embedded_engine_answers_from_eight_bits(tmp_path: Path) -> None:
    trained = base_student(SMOL, Settings.from_env().cache)
    int8 = export(trained, "int8", tmp_path / "int8", SMOL)
    with serving(StudentFiles(int8), "embedded", tmp_path / "log") as url:
        assert "Paris" in asked(url)
    assert (int8 / INT8_WEIGHTS).stat().st_size < 0.52 * (trained / "model.safetensors").stat().st_size


def test_what_is_served_as_it_is_is_not_exported_nor_what_has_no_pattern(tmp_path: Path) -> None:
    hf = student(tmp_path / "hf")
    with pytest.raises(TrainingError, match="bf16 is the folder itself"):
        export(hf, "bf16", tmp_path / "out", SMOL)
    with pytest.raises(TrainingError, match="by the pattern of its base student's own"):
        export(hf, "q4_0", tmp_path / "out", "somebody/else")
    assert not (tmp_path / "out").exists()


def test_each_engine_has_its_forms_and_says_which() -> None:
    assert [form_of(engine, "auto") for engine in ENGINES] == ["bf16", "q8_0", "f32", "bf16"]
    assert form_of("llama-server", "q4_0") == "q4_0"
    with pytest.raises(ValueError, match="form q4_0: the engine embedded reads bf16 or int8"):
        form_of("embedded", "q4_0")
    with pytest.raises(ValueError, match="form int8: a student by URL is published as bf16"):
        form_of(None, "int8")


def test_people_export_a_folder_or_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCUM_HOME", str(tmp_path / "home"))
    file = tmp_path / "policy.json"
    file.write_text(policy().model_dump_json(exclude_none=True))
    bundles = Settings.from_env().bundles("default")
    kept = student(bundles / "b1" / "student")
    complete(bundles, "b1", student=StudentRef(model="tiny", path="student"))

    def run(*args: str) -> object:
        out = ["--form", "int8", "--out", str(tmp_path / "out"), "--policy", str(file)]
        return CliRunner().invoke(app, ["export", *args, *out])

    for source in (["--bundle", "b1"], ["--student", str(kept)]):
        said = run(*source)
        assert said.exit_code == 0, said.output
        assert "int8" in said.output and (tmp_path / "out" / INT8_WEIGHTS).is_file()
    assert run().exit_code == 2
    assert isinstance(run("--bundle", "b9").exception, BundleError)
