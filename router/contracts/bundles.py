"""The bundle: {student, scorer, thresholds, dataset hash}, promoted and rolled back as one.

On disk a bundle is ``<home>/bundles/<policy>/<bundle id>/`` with ``manifest.json`` written last:
its existence means that the bundle is complete. ``<home>/bundles/<policy>/active.json`` is the one
pointer that activation and rollback replace atomically.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from router.contracts.files import write_atomically

FormName = Literal["bf16", "int8", "q8_0", "q4_0", "f32"]
"""``bf16``: as it was trained; ``f32``: the same of label heads. ``int8``: eight bits a weight, one scale for each row.
``q8_0`` and ``q4_0``: GGUF's blocks of 32 weights at 8.5 and 4.5 bits a weight."""


INT8_WEIGHTS = "int8.safetensors"
"""A student's eight-bit weights, in the place of ``model.safetensors``, so that nobody takes them for the weights."""
INT8_SCALE = ".int8_scale"
"""What stands for ``.weight`` in a tensor's name where it holds the scales of that matrix: (rows,) float32."""


MANIFEST = "manifest.json"
ACTIVE = "active.json"

NEVER = 1.01
"""The threshold that no probability reaches."""

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
STRICT = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


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

    model_config = STRICT

    target: Share
    confidence: Share
    examples: Count
    served: Count
    unacceptable: Count
    risk_bound: Share
    method: str
    over: Annotated[int, Field(gt=0)] | None = None
    share: Share | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if not self.unacceptable <= self.served <= self.examples:
            raise ValueError("more is unacceptable than is served, or more is served than there is")
        return self


class Thresholds(BaseModel):
    """``route``: score from which on the student is asked. ``accept``: probability from which on its
    answer leaves. Either above 1 means never (``NEVER``). ``tools``: what they do to the requests with tools alone;
    None where none was measured, as in bundles older than that."""

    model_config = STRICT

    route: Annotated[float, Field(ge=0, le=NEVER)]
    accept: Annotated[float, Field(ge=0, le=NEVER)]
    evidence: Evidence | None = None
    tools: Evidence | None = None


class DatasetRef(BaseModel):
    """What the student was trained on, and by which rights."""

    model_config = STRICT

    sha256: str
    train: Count
    dev: Count
    holdout: Count
    rights: dict[str, Count] = Field(default_factory=dict)


class Manifest(BaseModel):
    """``seal``: SHA-256 over all else that the file says, so that no bit of it changes unseen, as none of the weights
    does; None in bundles older than seals."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    bundle_id: str
    policy: str
    created_at: float = Field(ge=0)
    parent: str | None = None
    student: StudentRef
    scorer: str = "scorer"
    features_version: str
    thresholds: Thresholds
    dataset: DatasetRef
    evaluation: dict[str, Any] = Field(default_factory=dict)
    gate: dict[str, Any] = Field(default_factory=dict)
    train_seconds: float = Field(default=0.0, ge=0)
    cost_usd: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(E[+-]?[0-9]+)?$")] = "0"
    seal: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_unbroken(cls, said: Any) -> Any:
        if isinstance(said, dict) and said.get("seal") is not None and said["seal"] != _seal(said):
            raise ValueError("it is not what was written: its seal is broken")
        return said

    def sealed(self) -> Self:
        """The same, as it is to be written."""
        return self.model_copy(update={"seal": _seal(json.loads(self.model_dump_json()))})


def _seal(said: dict[str, Any]) -> str:
    rest = {key: value for key, value in said.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


class Canary(BaseModel):
    """A bundle that serves a share of the conversations beside the live one, until it is kept or rolled back."""

    model_config = ConfigDict(frozen=True)

    bundle: str
    began_at: float


class CanaryEnd(BaseModel):
    """How the last canary ended: ``kept``, so that it was made live, or rolled back; and why."""

    model_config = ConfigDict(frozen=True)

    bundle: str
    began_at: float
    at: float
    kept: bool
    reasons: tuple[str, ...]


class ActivePointer(BaseModel):
    """The pointer: which bundle is live, and which was before it; None is the base student alone. Beside it the
    canary, if one is under way, and how the last one ended."""

    bundle: str | None
    previous: str | None = None
    changed_at: float = 0.0
    canary: Canary | None = None
    ended: CanaryEnd | None = None


def read_active(folder: Path) -> ActivePointer:
    """The policy's pointer; the base student alone where none was ever written."""
    try:
        return ActivePointer.model_validate_json((folder / ACTIVE).read_bytes())
    except FileNotFoundError:
        return ActivePointer(bundle=None)


def activate(folder: Path, bundle: str | None, reasons: tuple[str, ...] = ("by hand",)) -> ActivePointer:
    """Points the policy at ``bundle``, atomically, and remembers the one before for rollback. A canary under way
    ends with it, for these ``reasons``: kept where it is what is activated, else rolled back.

    Raises:
        FileNotFoundError: the bundle has no manifest, so it is not complete.
    """
    with _changing(folder):
        return _pointed(folder, bundle, reasons)


def rollback(folder: Path) -> ActivePointer:
    """Ends the canary under way; without one, points the policy back at what was live before, so that a second call
    undoes the first."""
    with _changing(folder):
        now = read_active(folder)
        return _pointed(folder, now.bundle if now.canary else now.previous, ("by hand",))


def begin_canary(folder: Path, bundle: str) -> ActivePointer:
    """Lets ``bundle`` serve beside the live one, in the place of a canary under way. Raises FileNotFoundError where
    it is not complete."""
    _must_be_complete(folder, bundle)
    with _changing(folder):
        canary = Canary(bundle=bundle, began_at=time.time())
        return _written(folder, read_active(folder).model_copy(update={"canary": canary}))


def end_canary(folder: Path, bundle: str, *, kept: bool, reasons: tuple[str, ...]) -> ActivePointer | None:
    """Makes the canary live, or rolls it back. Whoever comes second changes nothing: None where ``bundle`` is no
    canary any more, or the pointer is damaged."""
    with _changing(folder):
        try:
            now = read_active(folder)
        except ValidationError:
            return None
        if now.canary is None or now.canary.bundle != bundle:
            return None
        return _pointed(folder, bundle if kept else now.bundle, reasons)


def _pointed(folder: Path, bundle: str | None, reasons: tuple[str, ...]) -> ActivePointer:
    now, at = read_active(folder), time.time()
    if bundle != now.bundle:
        _must_be_complete(folder, bundle)
    moved = {"bundle": bundle, "previous": now.bundle, "changed_at": at} if bundle != now.bundle else {}
    ended = now.ended
    if (canary := now.canary) is not None:
        kept = bundle == canary.bundle
        ended = CanaryEnd(bundle=canary.bundle, began_at=canary.began_at, at=at, kept=kept, reasons=reasons)
    return _written(folder, now.model_copy(update={**moved, "canary": None, "ended": ended}))


def _must_be_complete(folder: Path, bundle: str | None) -> None:
    if bundle is not None and not (folder / bundle / MANIFEST).is_file():
        raise FileNotFoundError(f"no complete bundle {bundle!r} in {folder}")


def _written(folder: Path, active: ActivePointer) -> ActivePointer:
    write_atomically(folder / ACTIVE, active.model_dump_json().encode())
    return active


@contextmanager
def _changing(folder: Path) -> Iterator[None]:
    """One at a time: proxies, supervisor and learning all may. The lock is the kernel's; a kill leaves none behind."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{ACTIVE}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def read_manifest(folder: Path, bundle: str) -> Manifest:
    """The bundle's manifest. Raises FileNotFoundError where the bundle is not complete."""
    return Manifest.model_validate_json((folder / bundle / MANIFEST).read_bytes())
