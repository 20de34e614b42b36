"""``locum distill dataset``: what a round would train on, to build, to look at, and to take elsewhere."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from distiller.commands.common import DEFAULT, PolicyFile, console
from router.policy.policy import load_policy
from router.settings import Settings
from router.store.access import reading

Folder = Annotated[Path, typer.Argument(help="A dataset's folder.")]

app = typer.Typer(no_args_is_help=True, help="Build the dataset that a round would train on, look at it, export it.")


class ExportFormat(StrEnum):
    """Who reads an exported dataset."""

    TRL = "trl"
    AXOLOTL = "axolotl"
    OPENAI = "openai"


@app.command()
def build(
    policy: PolicyFile = DEFAULT,
    out: Annotated[Path, typer.Option("--out", help="Folder to write train, dev and holdout to.")] = Path("dataset"),
    against: Annotated[
        list[Path],
        typer.Option("--against", help="File with prompts of an evaluation that must not be trained on; repeatable."),
    ] = [],  # noqa: B006  (typer reads it, nobody changes it)
    max_rows: Annotated[
        int | None, typer.Option("--max-rows", min=0, help="Rows to train on at most, 0: all; by default as a round.")
    ] = None,
) -> None:
    """Build the dataset: what would be trained on, by which right, and what was left out and why."""
    from dataclasses import replace

    from distiller.config import DatasetConfig
    from distiller.data import dataset, registry
    from distiller.data.evaluation_prompts import read_prompts
    from distiller.data.tables import dataset_table
    from distiller.progress import ConsoleProgress
    from distiller.synthesis.shelf import kept
    from router.engine.template import kept_template
    from router.scoring.text.encoder import kept_encoder

    chosen, settings = load_policy(policy), Settings.from_env()
    config = DatasetConfig.from_policy(chosen)
    if max_rows is not None:
        config = replace(config, max_rows=max_rows or None)
    prompts = [prompt for file in against for prompt in read_prompts(file)]
    with reading(settings) as log, ConsoleProgress(console) as tell:
        built = dataset.build(
            (record for _, record in chain(log.history(chosen.name), log.records(chosen.name))),
            chosen,
            out,
            config,
            against=prompts,
            written=kept(settings, chosen),
            encoder=partial(kept_encoder, settings.cache),
            template=partial(kept_template, chosen.student.model, settings.cache),
            tell=tell,
        )
    registry.remember(settings.home, out)
    console.print(dataset_table(built))
    console.print(f"{out} · sha256 {built.sha256[:12]}")


@app.command()
def show(
    folder: Folder = Path("dataset"),
    rows: Annotated[int, typer.Option("--rows", min=0, help="So many rows of the training split as an example.")] = 0,
) -> None:
    """Show what is in a dataset: rights, reasons why rows were left out, slices, lengths, failing kinds."""
    from itertools import islice

    from distiller.data import dataset, tables
    from distiller.data.tables import profile

    found = dataset.load(folder)
    console.print(tables.dataset_table(found))
    for table in tables.profile_tables(profile(found), found.failing):
        console.print(table)
    for row in islice(dataset.scan(found.train), rows):
        console.print(tables.row_panel(row))
    console.print(f"{folder} · sha256 {found.sha256}")


@app.command()
def export(
    folder: Folder = Path("dataset"),
    form: Annotated[ExportFormat, typer.Option("--format", help="Who reads it.")] = ExportFormat.TRL,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; else SPLIT.FORMAT.jsonl there.")] = None,
    split: Annotated[str, typer.Option(help="train, or dev: of it what may be trained on.")] = "train",
    student: Annotated[
        Path | None, typer.Option(help="A student's Hugging Face folder, whose own chat template goes with the rows.")
    ] = None,
) -> None:
    """Write the rows that may be trained on as JSON lines for another trainer.

    The Parquet files themselves have a `messages` column, which TRL and axolotl read as it is.
    """
    from distiller.data import dataset, registry
    from distiller.data.export import HINTS, write
    from distiller.forms.template import template_of

    template = None if student is None else template_of(student)
    if student is not None and template is None:
        raise typer.BadParameter(f"{student} has no chat template")
    found = dataset.load(folder)
    to = out or folder / f"{split}.{form.value}.jsonl"
    count = write(found, split, form.value, to)
    registry.remember(Settings.from_env().home, folder, export=to)
    console.print(f"{count} rows · {to}")
    if template is not None:
        beside = to.with_suffix(".jinja")
        beside.write_text(template, encoding="utf-8")
        console.print(f"its chat template · {beside}: chat_template_path for TRL, chat_template_jinja for axolotl")
    console.print(HINTS[form.value], markup=False)
