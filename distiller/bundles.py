"""Bundles on disk: written whole with the manifest last, listed, and thinned out again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from distiller.data.files import request_ids
from router.contracts.bundles import (
    MANIFEST,
    DatasetRef,
    FormName,
    Manifest,
    StudentRef,
    Thresholds,
    read_active,
    read_manifest,
)
from router.contracts.files import owners_alone, sha256_of, weights_of
from router.errors import BundleError
from router.policy.policy import Policy
from router.scoring.scorer import Scorer
from router.scoring.text.features import FEATURES_VERSION

STUDENT = "student"
INT8 = "student.int8"
GGUF = "student.gguf"
SCORER = "scorer"
ANSWERS = "answers.jsonl"
LEARNT = f"{SCORER}/learnt.jsonl"
DATASET = "dataset"
BASE = "base"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a round made.

    ``student`` is a Hugging Face folder, None where the base student stays; ``int8`` and ``gguf`` are what it was
    exported to, ``form`` the one that was judged and serves; ``trained_on`` the training split's file, of which
    the bundle keeps the request ids, so that it is known what went into it; ``learnt`` the holdout's requests that
    the scorer learnt from, by id; ``answers`` the student's kept answers to the evaluation's questions.
    ``train_seconds`` is training alone, ``seconds`` the whole round, which is what it cost beside ``paid_usd``,
    paid to judges and for synthetic data.
    """

    scorer: Scorer
    thresholds: Thresholds
    dataset: DatasetRef
    student: Path | None = None
    int8: Path | None = None
    gguf: Path | None = None
    form: FormName | None = None
    answers: Path | None = None
    trained_on: Path | None = None
    learnt: frozenset[str] = frozenset()
    parent: str | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    train_seconds: float = 0.0
    seconds: float = 0.0
    paid_usd: Decimal = Decimal(0)


def write_bundle(bundles: Path, policy: Policy, draft: Draft, now: float | None = None) -> Manifest:
    """Writes ``draft`` as a new bundle under ``bundles``; it is complete once this returns, never before.

    Weights are linked, not copied, where the file system allows it. Ids sort by time.
    """
    now = time.time() if now is None else now
    sha = weights_sha256(draft.student) if draft.student else None
    bundle_id = new_id(now, sha or "", draft.dataset.sha256, draft.thresholds.model_dump_json())
    folder = bundles / bundle_id
    folder.mkdir(parents=True)
    if draft.student:
        _link_tree(draft.student, folder / STUDENT)
    if draft.int8:
        _link_tree(draft.int8, folder / INT8)
    if draft.gguf:
        _link(draft.gguf, folder / GGUF)
    if draft.answers and draft.answers.is_file():
        shutil.copyfile(draft.answers, folder / ANSWERS)
    if draft.trained_on:
        _keep_ids(draft.trained_on, folder / DATASET / "train.jsonl")
    draft.scorer.save(folder / SCORER)
    (folder / LEARNT).write_text("".join(_id_line(name) for name in sorted(draft.learnt)))
    manifest = Manifest(
        bundle_id=bundle_id,
        policy=policy.name,
        created_at=now,
        parent=draft.parent,
        student=StudentRef(
            # A server that is reached by URL lists each student under a name of its own: the bundle's.
            model=bundle_id if policy.student.url and draft.student else policy.student.model,
            path=STUDENT if draft.student else None,
            gguf=GGUF if draft.gguf else None,
            int8=INT8 if draft.int8 else None,
            form=draft.form,
            sha256=sha,
            exports={
                **({GGUF: weights_sha256(folder / GGUF)} if draft.gguf else {}),
                **({INT8: weights_sha256(folder / INT8)} if draft.int8 else {}),
            },
        ),
        scorer=SCORER,
        features_version=FEATURES_VERSION,
        thresholds=draft.thresholds,
        dataset=draft.dataset,
        evaluation=draft.evaluation,
        gate=draft.gate,
        train_seconds=draft.train_seconds,
        cost_usd=str(round_cost_usd(draft.seconds, policy, draft.paid_usd)),
    ).sealed()
    owners_alone(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
    _write_last(folder / MANIFEST, manifest.model_dump_json(indent=1))
    return manifest


def round_cost_usd(seconds: float, policy: Policy, paid_usd: Decimal = Decimal(0)) -> Decimal:
    """What the training machine's time cost, and what was paid to judges and for synthetic data, in USD."""
    machine = Decimal(str(round(seconds, 3))) * policy.distil.usd_per_hour / 3600
    return (machine + paid_usd).quantize(Decimal("0.000001"))


def new_id(now: float, *content: str) -> str:
    """A bundle's id: its time in UTC, so that ids sort by it, and six hex digits of its content."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    digest = hashlib.sha256("\n".join([repr(now), *content]).encode()).hexdigest()
    return f"{stamp}-{digest[:6]}"


def weights_sha256(student: Path) -> str:
    """SHA-256 over the bytes of a student's weights: a folder's safetensors files by their names, or a GGUF file.

    Raises:
        BundleError: there are none.
    """
    files = weights_of(student)
    if not files:
        raise BundleError(f"{student} holds no safetensors weights")
    return sha256_of(files)


def manifests(bundles: Path) -> list[Manifest]:
    """The policy's complete bundles, oldest first."""
    found = sorted(p.parent.name for p in bundles.glob(f"*/{MANIFEST}"))
    return [read_manifest(bundles, name) for name in found]


def same_student(bundles: Path, bundle: str | None) -> frozenset[str]:
    """The student versions, as records name them, that have the weights of ``bundle`` (None: the base student)."""
    known = manifests(bundles)
    sha = next((m.student.sha256 for m in known if m.bundle_id == bundle), None)
    alike = {m.bundle_id for m in known if m.student.sha256 == sha}
    return frozenset(alike | {BASE} if sha is None else alike)


def has_weights(bundles: Path, manifest: Manifest) -> bool:
    """Whether the bundle can serve: its weights are still there, or it needs none of its own."""
    path = manifest.student.path
    return path is None or (bundles / manifest.bundle_id / path).is_dir()


def served_form(bundles: Path, bundle: str | None, base: str) -> StudentFiles:
    """A bundle's student as engines read it; ``base``, the base student's name, where it brought none of its own."""
    home = bundles / bundle if bundle else None
    own = [home / name for name in (INT8, STUDENT) if home and (home / name).is_dir()]
    gguf = home / GGUF if home and (home / GGUF).is_file() else None
    return StudentFiles(own[0] if own else base, gguf)


def prune(bundles: Path, keep: int = 5) -> list[str]:
    """Removes the weights of all but the newest ``keep`` bundles that have some, and torn bundles whole.

    The live bundle, the one before it and a canary always keep theirs. Manifests, scorers and evaluations stay.

    Returns:
        The bundles whose weights, or whole folders, were removed.
    """
    active = read_active(bundles)
    safe = {active.bundle, active.previous, active.canary.bundle if active.canary else None}
    own = [m.bundle_id for m in manifests(bundles) if m.student.path and has_weights(bundles, m)]
    old = [name for name in own[: max(0, len(own) - keep)] if name not in safe]
    for name in old:
        for folder in (STUDENT, INT8):
            shutil.rmtree(bundles / name / folder, ignore_errors=True)
        (bundles / name / GGUF).unlink(missing_ok=True)
    torn = [p.name for p in bundles.glob("*/") if not (p / MANIFEST).is_file() and p.name not in safe]
    for name in torn:
        shutil.rmtree(bundles / name, ignore_errors=True)
    return sorted([*old, *torn])


def _keep_ids(source: Path, target: Path) -> None:
    """Of each training row its request id alone: texts have their own retention."""
    target.parent.mkdir()
    with target.open("w") as ids:
        ids.writelines(map(_id_line, request_ids(source)))


def _id_line(request_id: str) -> str:
    return json.dumps({"request_id": request_id}) + "\n"


def _link_tree(source: Path, target: Path) -> None:
    target.mkdir()
    for file in _files(source):
        (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        _link(file, target / file.relative_to(source))


def _files(folder: Path) -> Iterable[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_last(path: Path, text: str) -> None:
    """The manifest appears whole, after everything else is on the disk."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.chmod(0o600)
    _sync(fresh)
    fresh.replace(path)
    _sync(path.parent)


@dataclass(frozen=True, slots=True)
class StudentFiles:
    """One student in the forms that engines read: a Hugging Face folder (or a base student's name), a GGUF file.

    ``gguf`` None is the base student's own file.
    """

    folder: Path | str
    gguf: Path | None = None
