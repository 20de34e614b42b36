"""Who is evaluated: a bundle, the base student, or any student on disk; in which form, with which scorer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distiller.bundles import BASE, DATASET, GGUF, INT8, LEARNT, STUDENT, StudentFiles, has_weights
from distiller.data.files import ids
from distiller.evaluation.study import EvaluatedStudent
from distiller.forms.export import export
from router.contracts.bundles import INT8_WEIGHTS, FormName, Manifest, read_manifest
from router.contracts.files import weights_of
from router.errors import BundleError, EngineError
from router.heads.files import NUMBERS
from router.heads.shelf import load_scorer
from router.policy.policy import Policy
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import load_encoder
from router.settings import Settings


@dataclass(frozen=True, slots=True)
class Subject:
    """One student. ``policy`` is the one given, with the engine that reads its form. ``bundle`` is None for the base
    student and for one on disk; ``folder`` is the bundle's."""

    name: str
    policy: Policy
    form: StudentFiles
    form_name: str
    bundle: Manifest | None = None
    folder: Path | None = None
    on_disk: bool = False

    @property
    def key(self) -> str:
        """What would make kept answers another student's: weights, form, engine, what is read of an answer."""
        place = self.form.gguf if self.policy.student.traits.gguf else self.form.folder
        known = [
            f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}"
            for p in (weights_of(Path(place)) if place and Path(place).exists() else ())
        ]
        student = self.policy.student
        said = [self.name, self.form_name, str(student.engine or student.url), self.policy.accept.model_dump_json()]
        return hashlib.sha256("\n".join([*said, *known]).encode()).hexdigest()[:12]

    def told(self, parent: str | None) -> EvaluatedStudent:
        student = self.policy.student
        return EvaluatedStudent(self.name, student.model, self.form_name, student.engine or "a URL", parent)

    def scorer(self, settings: Settings) -> Scorer | None:
        """The bundle's own; None without a bundle. Raises BundleError where this version cannot read it."""
        if self.bundle is None or self.folder is None:
            return None
        return load_scorer(self.folder, self.bundle, partial(load_encoder, settings.cache))

    @property
    def learnt(self) -> frozenset[str]:
        """Audited requests that the scorer was fitted on."""
        return self._ids(LEARNT)

    @property
    def trained_on(self) -> frozenset[str]:
        """Requests that the student was trained on."""
        return self._ids(f"{DATASET}/train.jsonl")

    def _ids(self, name: str) -> frozenset[str]:
        path = self.folder / name if self.folder else None
        return ids(path) if path and path.is_file() else frozenset()


def of_bundle(bundle: str | None, policy: Policy, settings: Settings) -> Subject:
    """A bundle as it serves; None or ``base``: the base student.

    Raises:
        BundleError: it is not complete, or its weights were pruned.
    """
    if bundle in (None, BASE):
        return Subject("the base student", policy, StudentFiles(policy.student.model), policy.student.served_form)
    bundles = settings.bundles(policy.name)
    try:
        manifest = read_manifest(bundles, str(bundle))
    except FileNotFoundError as e:
        raise BundleError(f"no complete bundle {bundle!r}; `locum distill list` shows them") from e
    if not has_weights(bundles, manifest):
        raise BundleError(f"the weights of bundle {bundle} were pruned; only newer ones can be asked")
    folder = bundles / manifest.bundle_id
    whole, int8, gguf = (folder / name for name in (STUDENT, INT8, GGUF))
    weights = next((p for p in (int8, whole) if p.is_dir()), policy.student.model)
    form = StudentFiles(weights, gguf if gguf.is_file() else None)
    name = manifest.student.form or policy.student.served_form
    return Subject(manifest.bundle_id, policy, form, name, manifest, folder)


def of_path(path: Path, policy: Policy, work: Path, tell: Callable[[str], None]) -> Subject:
    """A student's Hugging Face folder, brought into the policy's form under ``work`` where it has another; or a GGUF
    file, which llama-server serves whatever the policy's engine.

    Raises:
        EngineError: it is neither.
        TrainingError: it cannot be brought into that form.
    """
    if path.suffix == ".gguf" and path.is_file():
        part = policy.student.model_copy(update={"engine": "llama-server", "url": None, "form": "auto"})
        served = policy.model_copy(update={"student": part})
        return Subject(str(path), served, StudentFiles(policy.student.model, path), "gguf", on_disk=True)
    if not policy.student.traits.generates and (path / NUMBERS).is_file():
        return Subject(str(path), policy, StudentFiles(path), policy.student.served_form, on_disk=True)
    if not (path / "config.json").is_file():
        raise EngineError(f"{path} is no student: give a Hugging Face folder (it has a config.json) or a .gguf file")
    wanted: FormName = policy.student.served_form
    int8 = (path / INT8_WEIGHTS).is_file()
    if int8 or wanted == "bf16":
        return Subject(str(path), policy, StudentFiles(path), "int8" if int8 else wanted, on_disk=True)
    out = work / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}-{wanted}"
    tell(f"writing {wanted}")
    made = export(path, wanted, out if wanted == "int8" else out.with_suffix(".gguf"), policy.student.model)
    form = StudentFiles(made) if wanted == "int8" else StudentFiles(policy.student.model, made)
    return Subject(str(path), policy, form, wanted, on_disk=True)
