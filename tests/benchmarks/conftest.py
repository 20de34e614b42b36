"""Benchmarks are scripts that import each other by their bare names, as they are run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

Script = Callable[[str], Any]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """``script(name)`` is the module of that benchmark."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module
