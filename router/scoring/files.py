"""A scorer on disk: weights as safetensors, numbers as JSON, nothing that runs when it is read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from router.errors import BundleError
from router.policy.engines import EncoderKind
from router.scoring.answer_head import AnswerHead
from router.scoring.blend import Blend
from router.scoring.lengths import Lengths
from router.scoring.model import ScorerModel, gram_table
from router.scoring.neighbours import Neighbours
from router.scoring.text.encoder import KINDS, Encoder
from router.scoring.text.features import FEATURES_VERSION
from router.scoring.text.ngrams import BUCKETS
from router.scoring.text.reader import ANY_STRUCTURE, Familiarity, Reader
from router.scoring.text.templates import Templates

_ARRAYS, _NUMBERS = "scorer.safetensors", "scorer.json"
_FORMAT = 2
_NEIGHBOURS = ("projection", "offset", "rows", "votes", "tasks")
_ABOUT = ("names", "known", "near", "base")
_LENGTHS = ("bias", "least", "most", "smear", "usual")


def save(folder: Path, learned: ScorerModel, encoder: Encoder | None) -> None:
    """Writes what was learnt into ``folder``, made where it is missing."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    hashed = np.ascontiguousarray(learned.grams[:, : len(learned.bias)].T)
    arrays = {"dense": learned.dense, "hashed": hashed, "squared_idf": learned.grams[:, 2].copy()}
    arrays |= {"usual": learned.usual, "known": learned.grams[:, 3].astype(np.uint8)}
    lengths = learned.lengths
    if lengths is not None:
        arrays["lengths"] = lengths.weights
    near = learned.neighbours
    if near is not None:
        arrays |= {name: getattr(near, name) for name in _NEIGHBOURS}
    save_file(arrays, folder / _ARRAYS)
    numbers = {
        **_identity(encoder),
        "templates": [learned.templates.beginnings, learned.templates.endings],
        "tasks": learned.tasks,
        "bias": learned.bias,
        "familiarity": asdict(learned.familiarity),
        "neighbours": {name: getattr(near, name) for name in _ABOUT} if near else None,
        "blend": asdict(learned.blend),
        "lengths": {name: getattr(lengths, name) for name in _LENGTHS} if lengths else None,
        "head": learned.head.plain() if learned.head else None,
        "facts": learned.facts,
    }
    (folder / _NUMBERS).write_bytes(orjson.dumps(numbers, option=orjson.OPT_INDENT_2))


def encoder_of(folder: Path) -> EncoderKind | None:
    """Which encoder the scorer in ``folder`` was fitted with; None where it needs none.

    Raises:
        BundleError: its file cannot be read, or the encoder is one that this version does not know.
    """
    try:
        name = orjson.loads((folder / _NUMBERS).read_bytes())["encoder"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BundleError(f"the scorer in {folder} cannot be read: {e}") from e
    if name is not None and name not in KINDS:
        raise BundleError(f"the scorer in {folder} is for the encoder {name!r}, which this version does not know")
    return None if name is None else KINDS[name]


def load(folder: Path, encoder: Encoder | None) -> ScorerModel:
    """What ``save`` wrote.

    Raises:
        BundleError: files are missing or damaged, or made for other features or another encoder.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        numbers = orjson.loads((folder / _NUMBERS).read_bytes())
        if (found := {k: numbers.get(k) for k in _identity(encoder)}) != _identity(encoder):
            raise BundleError(f"the scorer in {folder} is for {found}, not for {_identity(encoder)}")
        arrays = load_file(folder / _ARRAYS)
        templates = Templates(*map(tuple, numbers["templates"]))
        _check_shapes(folder, arrays, len(numbers["bias"]), Reader(encoder, templates, ANY_STRUCTURE).width)
        familiarity, head = Familiarity(**numbers["familiarity"]), numbers["head"]
        return ScorerModel(
            templates=templates,
            usual=arrays["usual"],
            dense=arrays["dense"],
            grams=gram_table(list(arrays["hashed"]), arrays["squared_idf"], arrays["known"] > 0),
            tasks={task: tuple(weights) for task, weights in numbers["tasks"].items()},
            bias=tuple(numbers["bias"]),
            familiarity=familiarity,
            neighbours=_neighbours(arrays, numbers["neighbours"]),
            blend=Blend(**numbers["blend"]),
            head=AnswerHead.of(head) if head else None,
            lengths=_lengths(arrays, numbers["lengths"]),
            facts=numbers["facts"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise BundleError(f"the scorer in {folder} cannot be read: {e}") from e


def _neighbours(arrays: dict[str, Any], numbers: dict[str, Any] | None) -> Neighbours | None:
    if numbers is None:
        return None
    own = {name: arrays[name] for name in _NEIGHBOURS}
    if {len(numbers["names"]), len(own["tasks"]), own["votes"].shape[-1]} != {len(own["rows"])}:
        raise ValueError("its neighbours do not fit together")
    about = {**numbers, "names": tuple(numbers["names"]), "base": tuple(numbers["base"])}
    return Neighbours(**own, **about)


def _lengths(arrays: dict[str, Any], numbers: dict[str, Any] | None) -> Lengths | None:
    return Lengths(arrays["lengths"], **{**numbers, "usual": tuple(numbers["usual"])}) if numbers else None


def _check_shapes(folder: Path, arrays: dict[str, Any], heads: int, width: int) -> None:
    wanted = {"dense": (heads, width), "hashed": (heads, BUCKETS), "squared_idf": (BUCKETS,)}
    wanted |= {"usual": ANY_STRUCTURE.shape, "known": (BUCKETS,)}
    if "lengths" in arrays:
        wanted["lengths"] = ANY_STRUCTURE[0].shape
    if {name: arrays[name].shape for name in wanted} != wanted or heads not in (1, 2):
        raise BundleError(f"the scorer in {folder} is damaged: its weights have the wrong shape")


def _identity(encoder: Encoder | None) -> dict[str, Any]:
    """What must agree between a scorer's file and the code and encoder that use it."""
    name = encoder.name if encoder else None
    return {"format": _FORMAT, "features_version": FEATURES_VERSION, "encoder": name, "buckets": BUCKETS}
