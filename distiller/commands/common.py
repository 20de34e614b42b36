"""What the commands have in common: their options, where they print, and how they tell what is live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from router.policy import Policy
from router.settings import Settings

console = Console()

DEFAULT = Path("policies/default.yaml")
PolicyFile = Annotated[Path, typer.Option("--policy", "-p", help="Policy file: it names the student and the target.")]
Seed = Annotated[int, typer.Option(help="Seed of training and fitting: the same log and seed give the same student.")]


def say_live(policy: Policy, settings: Settings, bundle: str | None) -> None:
    from distiller.rounds.live import wait_until_live  # noqa: PLC0415

    console.print(wait_until_live(settings, policy.name, bundle), highlight=False)
