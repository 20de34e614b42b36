"""The trained student as a GGUF file, for llama.cpp: the base file's form with the new weights."""

from __future__ import annotations

from pathlib import Path


def to_gguf(hf_folder: Path, base_gguf: Path, out: Path) -> Path:
    """Writes the Hugging Face folder's weights in the base GGUF's form: Q8_0 matrices, F32 norms, its metadata.

    Raises:
        ExportError: a tensor of either has no counterpart of the same shape in the other.
    """
    raise NotImplementedError
