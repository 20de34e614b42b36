"""The dataset by hand: what a round would train on."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from distiller.commands.common import DEFAULT, PolicyFile, console
from router.policy import load_policy
from router.settings import Settings
from router.store.base import open_readonly


def dataset(
    policy: PolicyFile = DEFAULT,
    out: Annotated[Path, typer.Option("--out", help="Folder to write train, dev and holdout to.")] = Path("dataset"),
) -> None:
    """Only build the dataset: what would be trained on, by which right, and what was left out and why."""
    from distiller.data.dataset import build  # noqa: PLC0415
    from distiller.show import dataset_table  # noqa: PLC0415

    chosen, settings = load_policy(policy), Settings.from_env()
    with closing(open_readonly(settings)) as log:
        built = build((record for _, record in log.records(chosen.name)), chosen, out)
    console.print(dataset_table(built))
    console.print(f"{out} · sha256 {built.sha256[:12]}")
