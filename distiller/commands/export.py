"""A trained student for elsewhere: another engine, another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distiller.commands.common import DEFAULT, PolicyFile, console
from router.contracts.bundles import FormName, read_manifest
from router.errors import BundleError
from router.policy.policy import Policy, load_policy
from router.settings import Settings


def export(
    form: Annotated[FormName, typer.Option(help="int8: a folder for the embedded engine; q8_0, q4_0: a GGUF file.")],
    out: Annotated[Path, typer.Option(help="What to write: a file for a GGUF, a folder for int8.")],
    bundle: Annotated[str | None, typer.Option(help="A bundle's id from `locum distill list`.")] = None,
    student: Annotated[Path | None, typer.Option(help="Instead of a bundle: a student's Hugging Face folder.")] = None,
    policy: PolicyFile = DEFAULT,
) -> None:
    """Write a trained student in a form that engines read: smaller, faster, or for llama.cpp and Ollama.

    The policy names the base student, whose own GGUF a new one is patterned on. What it gains and what it costs in
    quality is measured with `locum distill evaluate`; rounds do both by themselves, by the policy's `student.form`.
    """
    from distiller.forms.export import export as write
    from router.contracts.files import weights_of

    chosen = load_policy(policy)
    if (bundle is None) == (student is None):
        raise typer.BadParameter("give exactly one of --bundle and --student")
    source = student if student is not None else _weights(chosen, str(bundle))
    written = write(source, form, out, chosen.student.model)
    size, before = (sum(p.stat().st_size for p in weights_of(place)) / 1e6 for place in (written, source))
    console.print(f"{written} · {form} · {size:.1f} MB, {size / before:.0%} of {before:.1f} MB")


def _weights(policy: Policy, bundle: str) -> Path:
    """The bundle's weights as trained. Raises BundleError where it has none."""
    folder = Settings.from_env().bundles(policy.name)
    try:
        path = read_manifest(folder, bundle).student.path
    except FileNotFoundError as e:
        raise BundleError(f"no complete bundle {bundle!r}; `locum distill list` shows them") from e
    if path is None:
        raise BundleError(f"bundle {bundle} keeps the base student: there is nothing trained to export")
    if not (folder / bundle / path).is_dir():
        raise BundleError(f"the weights of bundle {bundle} were pruned; only newer ones can be exported")
    return folder / bundle / path
