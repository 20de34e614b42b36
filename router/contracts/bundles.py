"""The bundle: {student, scorer, thresholds, dataset hash}, promoted and rolled back as one.

On disk a bundle is ``<home>/bundles/<policy>/<bundle id>/`` with ``manifest.json`` written last:
its existence means that the bundle is complete. ``<home>/bundles/<policy>/active.json`` is the one
pointer that activation and rollback replace atomically.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from router.contracts.files import write_atomically
from router.contracts.forms import FormName

MANIFEST = "manifest.json"
ACTIVE = "active.json"


class StudentRef(BaseModel):
    """The student's weights: a Hugging Face folder as trained and, where they were exported, the same in eight bits
    for the embedded engine (``int8``) and a GGUF file.

    Paths are relative to the bundle. ``path`` is None where the bundle keeps the base student and
    only fits a scorer for it; ``sha256`` is over the bytes of the weights as trained, ``exports`` has that of every
    exported file by its path. ``form`` is what the gate judged, so what serves; None in bundles older than forms.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    path: str | None = None
    gguf: str | None = None
    int8: str | None = None
    form: FormName | None = None
    sha256: str | None = None
    exports: dict[str, str] = Field(default_factory=dict)


class Evidence(BaseModel):
    """What a threshold rests on: the test that was passed, on how many examples.

    ``over``: the promise is for the next so many requests together; None for the long run. ``share``: of the
    traffic, by the examples' weights, that the student serves; None in bundles older than weights.
    """

    model_config = ConfigDict(frozen=True)

    target: float
    confidence: float
    examples: int
    served: int
    unacceptable: int
    risk_bound: float
    method: str
    over: int | None = None
    share: float | None = None


class Thresholds(BaseModel):
    """``route``: score from which on the student is asked. ``accept``: probability from which on its
    answer leaves. Either above 1 means never."""

    model_config = ConfigDict(frozen=True)

    route: float
    accept: float
    evidence: Evidence | None = None


class DatasetRef(BaseModel):
    """What the student was trained on, and by which rights."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    train: int
    dev: int
    holdout: int
    rights: dict[str, int] = Field(default_factory=dict)


class Manifest(BaseModel):
    schema_version: Literal[1] = 1
    bundle_id: str
    policy: str
    created_at: float
    parent: str | None = None
    student: StudentRef
    scorer: str = "scorer"
    features_version: str
    thresholds: Thresholds
    dataset: DatasetRef
    evaluation: dict[str, Any] = Field(default_factory=dict)
    gate: dict[str, Any] = Field(default_factory=dict)
    train_seconds: float = 0.0
    cost_usd: str = "0"


class Active(BaseModel):
    """The pointer: which bundle is live, and which was before it. None is the base student alone."""

    bundle: str | None
    previous: str | None = None
    changed_at: float = 0.0


def read_active(folder: Path) -> Active:
    """The policy's pointer; the base student alone where none was ever written."""
    try:
        return Active.model_validate_json((folder / ACTIVE).read_bytes())
    except FileNotFoundError:
        return Active(bundle=None)


def activate(folder: Path, bundle: str | None) -> Active:
    """Points the policy at ``bundle``, atomically, and remembers the one before for rollback.

    Raises:
        FileNotFoundError: the bundle has no manifest, so it is not complete.
    """
    if bundle is not None and not (folder / bundle / MANIFEST).is_file():
        raise FileNotFoundError(f"no complete bundle {bundle!r} in {folder}")
    active = Active(bundle=bundle, previous=read_active(folder).bundle, changed_at=time.time())
    write_atomically(folder / ACTIVE, active.model_dump_json().encode())
    return active


def rollback(folder: Path) -> Active:
    """Points the policy back at what was live before; a second call undoes the first."""
    return activate(folder, read_active(folder).previous)


def read_manifest(folder: Path, bundle: str) -> Manifest:
    """The bundle's manifest. Raises FileNotFoundError where the bundle is not complete."""
    return Manifest.model_validate_json((folder / bundle / MANIFEST).read_bytes())
