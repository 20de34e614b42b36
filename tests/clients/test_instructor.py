"""``instructor``, which wants older versions of what it needs than we do: it has a process of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from sysconfig import get_path

from tests.clients.conftest import HERE, PYTHON, WEATHER, Run, Tiers


def test_its_session(run: Run, tier: str, tiers: Tiers) -> None:
    apart = Path(get_path("data")) / "apart"
    path = os.pathsep.join(filter(None, (str(apart), os.environ.get("PYTHONPATH"))))
    said = json.loads(run([PYTHON, str(HERE / "instructor_session.py")], PYTHONPATH=path, LOCUM_MODEL=f"locum/{tier}"))
    modes = {"TOOLS": WEATHER, "JSON": WEATHER, "JSON_SCHEMA": WEATHER}
    assert said["found"] == modes
    assert said["streamed"][-1] == WEATHER
    assert len(said["streamed"]) > 1
    assert "maximum context length" in said["error"]
    assert said["cause"] == "BadRequestError"
    assert tiers(5) == [tier] * 4 + ["None"]
