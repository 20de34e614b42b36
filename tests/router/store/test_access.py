"""A home that cannot be used says so before anything is started, in words that help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from router.errors import StoreError
from router.settings import Settings
from router.store.access import check_store


def test_a_home_is_made_where_there_is_none(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "a" / "home")
    check_store(settings)
    check_store(settings)
    assert settings.records_db.is_file() and settings.run.is_dir()


@pytest.mark.parametrize("place", ["", "run", "logs", "bundles", "work", "records.db"])
def test_what_lies_in_the_place_of_a_part_of_the_home_is_named(tmp_path: Path, place: str) -> None:
    home = tmp_path / "home"
    at = home / place
    at.parent.mkdir(parents=True, exist_ok=True)
    if place == "records.db":
        at.mkdir()
    else:
        at.write_text("x")
    with pytest.raises(
        StoreError, match=r"move away what lies in its place, or name another folder in LOCUM_HOME"
    ) as e:
        check_store(Settings(home=home))
    assert str(at) in str(e.value)


def test_a_home_where_nobody_may_write_is_named() -> None:
    with pytest.raises(StoreError, match=r"/proc/home/records\.db.*let this user write there"):
        check_store(Settings(home=Path("/proc/home")))


POLICY = """
name: default
student: {model: s, engine: embedded, usd_per_million: {input: 0.02, output: 0.06}}
teacher: {model: openai/gpt-5, usd_per_million: {input: 1, output: 2}}
objective: {parity: {at_least: 0.95}}
"""


@pytest.mark.parametrize(
    ("command", "place"),
    [(["serve"], ""), (["up"], "bundles"), (["status"], ""), (["status"], "bundles"), (["distill", "status"], "")],
)
def test_commands_tell_it_in_one_line(tmp_path: Path, command: list[str], place: str) -> None:
    home, policy = tmp_path / "home", tmp_path / "default.yaml"
    (home / place).parent.mkdir(exist_ok=True)
    (home / place).write_text("x")
    policy.write_text(POLICY)
    asked = [sys.executable, "-m", "router.cli", *command, "--policy", str(policy)]
    environment = os.environ | {"LOCUM_HOME": str(home)}
    told = subprocess.run(asked, check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert line.startswith("locum: cannot ") and str(home) in line and "move away what lies in its place" in line
