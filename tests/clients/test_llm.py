"""Simon Willison's ``llm``, told of us by ``extra-openai-models.yaml`` as its manual says: library and command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from pydantic import BaseModel

from tests.clients.conftest import KEY, PYTHON, WEATHER, Run, Tiers
from tests.fakes import World


class Weather(BaseModel):
    city: str
    celsius: int


def thermometer(city: str) -> str:
    """The temperature in a city."""
    return f"4 degrees in {city}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, proxy: World) -> Path:
    """Its folder: the models that it is told of, and our key under the name ``locum``."""
    folder = tmp_path_factory.mktemp("llm")
    place = {"api_base": f"{proxy.url}/v1", "api_key_name": "locum", "supports_tools": True, "supports_schema": True}
    declared = [{"model_id": n, "model_name": f"locum/{n}"} | place for n in ("student", "teacher", "nobody")]
    (folder / "extra-openai-models.yaml").write_text(yaml.safe_dump(declared))
    (folder / "keys.json").write_text(json.dumps({"locum": KEY}))
    return folder


@pytest.fixture
def settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Its environment. It loads no plugin: the weights that our engine is tested with come inside one."""
    found = {"LLM_USER_PATH": str(home), "LLM_LOAD_PLUGINS": ""}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def model(settings: dict[str, str], tier: str) -> Any:
    import llm  # reads its environment when it is imported

    return llm.get_model(tier)


def test_the_library(model: Any, proxy: World, tier: str, tiers: Tiers) -> None:
    name, talk = getattr(proxy, tier).model, model.conversation()
    assert talk.prompt("hi", stream=False).text() == f"{name} hears turn 1: hi"
    pieces = list(talk.prompt("and?"))
    assert len(pieces) > 3
    assert "".join(pieces) == f"{name} hears turn 2: and?"
    assert json.loads(model.prompt("the weather?", schema=Weather).text()) == WEATHER
    for stream in (False, True):
        told = model.chain("how cold is it?", tools=[thermometer], stream=stream)
        assert told.text() == f"{name} was told: 4 degrees in Oslo"
    assert tiers(7) == [tier] * 7
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        model.prompt("too long").text()


def test_the_command(settings: dict[str, str], run: Run, proxy: World, tiers: Tiers) -> None:
    def llm(*words: str) -> str:
        return run([PYTHON, "-m", "llm", *words], **settings).strip()

    assert llm("-m", "student", "hi") == f"{proxy.student.model} hears turn 1: hi"
    assert llm("-c", "and?") == f"{proxy.student.model} hears turn 2: and?"
    assert tiers(2) == ["student", "student"]
    with pytest.raises(AssertionError, match=r"Error:.*locum/nobody"):
        llm("-m", "nobody", "hi")
