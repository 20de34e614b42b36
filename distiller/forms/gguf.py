"""The trained student as a GGUF file, for llama.cpp: the base file's form with the new weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distiller.forms.template import template_of
from router.errors import TrainingError
from router.policy.engines import GgufForm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROTATED_IN_PAIRS = frozenset({"llama"})
"""Architectures whose query and key rows llama.cpp keeps in another order than Hugging Face does."""

HEAD, EMBEDDING = "output.weight", "token_embd.weight"
STATED, TEMPLATE = (
    frozenset({"general.architecture", "general.file_type", "general.alignment"}),
    "tokenizer.chat_template",
)
KEPT = frozenset({"rope_freqs.weight"})
"""Tensors of a base file that follow from its configuration, not from training."""


def to_gguf(hf_folder: Path, base_gguf: Path, out: Path, form: GgufForm = "q8_0") -> Path:
    """Writes the Hugging Face folder's weights as a GGUF of the base's metadata: matrices in ``form``, norms in F32.
    The chat template is the folder's own, by which it was trained; the base's where it has none.

    The matrix that answers are read off (the head, or the embedding where that is the head too) is never coarser than
    Q8_0, since its errors reach the answer whole; llama.cpp's own conversion keeps it finer too.

    Q4_0 is rounded plainly: scales chosen by the weights' squared error lower that by a fifth, and were measured to
    move the answers further (SmolLM2-135M, distilled: KL 0.77 beside 0.58). Q4_1 is not offered: the packaged SmolLM2's
    weights lie on its grid, and rounded to it again a student trained from it kept a tenth of what training changed.

    ``out`` appears whole or not at all.

    Raises:
        TrainingError: a tensor of either has no counterpart of the same shape in the other.
    """
    import gguf  # only an export needs it

    base = gguf.GGUFReader(base_gguf)
    arch = str(base.fields["general.architecture"].contents())
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f"{out.name}.{os.getpid()}")
    writer = gguf.GGUFWriter(fresh, arch, use_temp_file=True)
    template = template_of(hf_folder)
    _copy_metadata(base, writer, STATED if template is None else STATED | {TEMPLATE})
    if template is not None:
        writer.add_chat_template(template)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{form.upper()}"])
    shapes = {t.name: tuple(reversed(t.shape.tolist())) for t in base.tensors}
    kept = {t.name: t for t in base.tensors if t.name in KEPT}
    head = HEAD if HEAD in shapes else EMBEDDING
    for name, weight in _renamed(hf_folder, base, arch):
        if shapes.pop(name, None) != weight.shape:
            raise TrainingError(
                f"{base_gguf.name} has no tensor {name} of shape {weight.shape}: not this student's base"
            )
        kind = _kind(weight, "q8_0" if name == head else form)
        writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    for name, tensor in kept.items():
        shapes.pop(name)
        writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    if shapes:
        raise TrainingError(f"{hf_folder.name} lacks weights that {base_gguf.name} has: {', '.join(sorted(shapes))}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fresh.replace(out)
    return out


def interleave(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Query or key rows in llama.cpp's order.

    Hugging Face rotates a head's row i with row i + half (``rotate_half``); llama.cpp rotates rows 2i
    and 2i + 1 (llama.cpp, ``convert_hf_to_gguf.py``, ``permute``). weight: (heads * width, inputs) or (heads * width,).
    """
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _renamed(hf_folder: Path, base: Any, arch: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The folder's tensors in float32 by their GGUF names, in llama.cpp's order of rows."""
    import gguf

    architectures = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(architectures[arch], int(base.fields[f"{arch}.block_count"].contents()))
    heads = int(base.fields[f"{arch}.attention.head_count"].contents())
    grouped = base.fields.get(f"{arch}.attention.head_count_kv")
    key_heads = int(grouped.contents()) if grouped else heads
    for hf_name, weight in _tensors(hf_folder):
        name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise TrainingError(f"GGUF has no name for the tensor {hf_name} of a {arch} model")
        if arch in ROTATED_IN_PAIRS and ".attn_q." in name:
            yield name, interleave(weight, heads)
        elif arch in ROTATED_IN_PAIRS and ".attn_k." in name:
            yield name, interleave(weight, key_heads)
        else:
            yield name, weight


def _tensors(hf_folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    from safetensors import safe_open

    with ExitStack() as stack:
        for path in sorted(hf_folder.glob("*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                yield name, file.get_tensor(name).float().numpy()


def _kind(weight: NDArray[np.float32], form: GgufForm) -> Any:
    """Norms and biases are small and stay exact; a row must hold whole blocks of 32 to be quantised."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    if weight.ndim == 1:
        return kinds.F32
    kind = kinds[form.upper()]
    return kind if weight.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else kinds.F16


def _copy_metadata(base: Any, writer: Any, own: frozenset[str]) -> None:
    """Everything the base says of itself but what the writer states anew (``own``)."""
    import gguf

    for name, field in base.fields.items():
        if name.startswith("GGUF.") or name in own:
            continue
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=field.types[-1] if array else None)
