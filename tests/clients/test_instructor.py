"""``instructor``, which wants older versions of what it needs than we do: it has a process of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from sysconfig import get_path

from tests.clients.conftest import HERE, PYTHON, WEATHER, Run, Tiers


def test_its_session(run: Run, tiers: Tiers) -> None:
    apart = Path(get_path("data")) / "apart"
    path = os.pathsep.join(filter(None, (str(apart), os.environ.get("PYTHONPATH"))))
    student, teacher = json.loads(run([PYTHON, str(HERE / "instructor_session.py")], PYTHONPATH=path))
    for said in (student, teacher):
        assert said["found"] == dict.fromkeys(("TOOLS", "JSON", "JSON_SCHEMA", "RESPONSES_TOOLS"), WEATHER)
        assert said["streamed"][-1] == WEATHER
        assert len(said["streamed"]) > 1
        assert "maximum context length" in said["error"]
    assert tiers(12) == [*["student"] * 5, "None", *["teacher"] * 5, "None"]
