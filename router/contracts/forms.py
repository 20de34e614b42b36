"""The forms that a student's weights are served in: which engine reads which, and what ``auto`` means there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

FormName = Literal["bf16", "int8", "q8_0", "q4_0"]
"""``bf16``: as it was trained. ``int8``: eight bits a weight, one scale for each row. ``q8_0`` and ``q4_0``: GGUF's
blocks of 32 weights at 8.5 and 4.5 bits a weight."""

GgufForm = Literal["q8_0", "q4_0"]
FormChoice = Literal["auto", "bf16", "int8", "q8_0", "q4_0"]
GGUF_FORMS: tuple[GgufForm, ...] = get_args(GgufForm)

READ_BY: Mapping[str | None, tuple[FormName, ...]] = {
    "embedded": ("bf16", "int8"),
    "llama-server": GGUF_FORMS,
    None: ("bf16",),
}
"""By engine, None a student by URL; the first is what ``auto`` means."""


INT8_WEIGHTS = "int8.safetensors"
"""A student's eight-bit weights, in the place of ``model.safetensors``, so that nobody takes them for the weights."""
INT8_SCALE = ".int8_scale"
"""What stands for ``.weight`` in a tensor's name where it holds the scales of that matrix: (rows,) float32."""


def form_of(engine: str | None, choice: FormChoice) -> FormName:
    """The form that a policy's choice means for its engine.

    Raises:
        ValueError: the engine does not read it; the message says which it reads.
    """
    forms = READ_BY[engine]
    if choice == "auto":
        return forms[0]
    if choice not in forms:
        reader = f"the engine {engine} reads" if engine else "a student by URL is published as"
        raise ValueError(f"form {choice}: {reader} {' or '.join(forms)}; leave 'form' out, or choose one of these")
    return choice


def gguf_form(form: FormName) -> GgufForm:
    """The kind of GGUF file that goes with a form: another engine's beside it is ``q8_0``."""
    return next((kind for kind in GGUF_FORMS if kind == form), GGUF_FORMS[0])
