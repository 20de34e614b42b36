"""A trained student in the form that serves it."""

from __future__ import annotations

from pathlib import Path

from distiller.forms.gguf import to_gguf
from distiller.forms.int8 import to_int8
from router.contracts.bundles import FormName
from router.engine.weights import base_gguf
from router.errors import EngineError, TrainingError
from router.policy.engines import GGUF_FORMS


def export(student: Path, form: FormName, out: Path, base: str) -> Path:
    """Writes the Hugging Face folder ``student`` to ``out``: a folder for ``int8``, a file for the GGUF forms.

    ``base`` is the student it came from, by name or GGUF file: a GGUF takes tokenizer and configuration from its.

    Raises:
        TrainingError: there is nothing to write (``bf16`` is the folder itself), no GGUF of the base is known, or
            it is another model's.
    """
    if form == "int8":
        return to_int8(student, out)
    for kind in GGUF_FORMS:
        if kind == form:
            return to_gguf(student, _gguf_of(base), out, kind)
    raise TrainingError(f"{form} is the folder itself: {student} can be served as it is")


def has_gguf(base: str) -> bool:
    """Whether the base student's own GGUF is known, so that one can be written of what was trained from it."""
    try:
        base_gguf(base)
    except EngineError:
        return False
    return True


def _gguf_of(base: str) -> Path:
    try:
        return base_gguf(base)
    except EngineError as e:
        raise TrainingError(f"a GGUF is written by the pattern of its base student's own: {e}") from e
