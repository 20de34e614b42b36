"""Heads on disk: weights as safetensors, numbers as JSON, nothing that runs when it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from router.errors import BundleError
from router.heads.form import AnswerForm
from router.heads.head import Calibration, LabelHead, Layer
from router.heads.heads import LabelHeads, TaskHead
from router.heads.inputs import COLUMNS, HeadInputs
from router.heads.kinds import RequestKinds, plain_kind, read_kind
from router.policy.engines import EncoderKind
from router.scoring.text.encoder import KINDS, Encoder
from router.scoring.text.features import FEATURES_VERSION
from router.scoring.text.ngrams import BUCKETS
from router.scoring.text.reader import ANY_STRUCTURE, Familiarity, Reader
from router.scoring.text.templates import Templates

NUMBERS = "heads.json"
_ARRAYS, _FORMAT = "heads.safetensors", 1
_INPUTS = ("usual", "mean", "scale", "squared_idf")


def save(heads: LabelHeads, folder: Path) -> None:
    """Writes them into ``folder``, made where it is missing; the numbers last."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"count": np.array([len(heads.heads)])}  # a file without arrays is none
    told = []
    for n, (kind, one) in enumerate(heads.heads.items()):
        inputs = one.head.inputs
        arrays |= {f"{n}.{name}": getattr(inputs, name) for name in _INPUTS}
        arrays |= {f"{n}.layer.{m}": layer.weights for m, layer in enumerate(one.head.layers)}
        told.append({
            "kind": plain_kind(kind),
            "name": one.name,
            "form": one.form.plain(),
            "templates": [inputs.templates.beginnings, inputs.templates.endings],
            "familiarity": asdict(inputs.familiarity),
            "layers": [{"name": layer.name, "values": layer.values} for layer in one.head.layers],
            "calibration": asdict(one.head.calibration),
            "examples": one.head.examples,
        })  # fmt: skip
    save_file(arrays, folder / _ARRAYS)
    numbers = {**_identity(heads.encoder), "kinds": heads.kinds.plain(), "heads": told}
    (folder / NUMBERS).write_bytes(orjson.dumps(numbers, option=orjson.OPT_INDENT_2))


def load(folder: Path, encoders: Callable[[EncoderKind], Encoder | None]) -> LabelHeads:
    """What ``save`` wrote, giving the very same answers, with the encoder that it was fitted with.

    Raises:
        BundleError: files are missing or damaged, or made for other features or an unknown encoder.
        EngineError: the encoder cannot be had.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        numbers, arrays = orjson.loads((folder / NUMBERS).read_bytes()), load_file(folder / _ARRAYS)
        name = numbers["encoder"]
        encoder = None if name is None else encoders(KINDS[name])
        if (found := {key: numbers.get(key) for key in _identity(encoder)}) != _identity(encoder):
            raise BundleError(f"the heads in {folder} are for {found}, not for {_identity(encoder)}")
        heads = {read_kind(*one["kind"]): _head(n, one, arrays, encoder) for n, one in enumerate(numbers["heads"])}
        return LabelHeads(RequestKinds.read(numbers["kinds"]), heads, encoder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise BundleError(f"the heads in {folder} cannot be read: {e!r}") from e


def _head(n: int, told: Mapping[str, Any], arrays: Mapping[str, Any], encoder: Encoder | None) -> TaskHead:
    own = {name: arrays[f"{n}.{name}"] for name in _INPUTS}
    templates = Templates(*map(tuple, told["templates"]))
    inputs = HeadInputs(templates=templates, familiarity=Familiarity(**told["familiarity"]), **own)
    layers = tuple(
        Layer(layer["name"], tuple(layer["values"]), arrays[f"{n}.layer.{m}"]) for m, layer in enumerate(told["layers"])
    )
    width = Reader(encoder, templates, ANY_STRUCTURE).width
    shapes = [own[name].shape for name in _INPUTS]
    wanted = [ANY_STRUCTURE.shape, (width,), (width,), (BUCKETS,)]
    fits = all(layer.weights.shape == (width + COLUMNS + 1, len(layer.values)) for layer in layers)
    if shapes != wanted or not fits or not layers:
        raise ValueError(f"the weights of {told['name']!r} have the wrong shape")
    calibration = Calibration(tuple(told["calibration"]["weights"]), told["calibration"]["bias"])
    head = LabelHead(inputs, layers, calibration, told["examples"])
    return TaskHead(told["name"], head, AnswerForm.read(told["form"]), inputs.reader(encoder))


def _identity(encoder: Encoder | None) -> dict[str, Any]:
    """What must agree between a file and the code and encoder that use it."""
    name = encoder.name if encoder else None
    return {"format": _FORMAT, "features_version": FEATURES_VERSION, "encoder": name, "buckets": BUCKETS}
