"""What the commands have in common: their options, where they print, and how they tell what is live."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from router.errors import LocumError
from router.policy import Policy
from router.settings import Settings
from router.terminal import Terminal

console = Terminal()

DEFAULT = Path("policies/default.yaml")
PolicyFile = Annotated[Path, typer.Option("--policy", "-p", help="Policy file: it names the student and the target.")]
Seed = Annotated[int, typer.Option(help="Seed of training and fitting: the same log and seed give the same student.")]


def usd_option(name: str, value: str) -> Decimal:
    """An amount in US dollars as it was typed. Raises LocumError where it is none."""
    try:
        found = Decimal(value)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite() or found < 0:
        raise LocumError(f"{name} {value!r}: say an amount in US dollars, such as 2.00")
    return found


def say_live(policy: Policy, settings: Settings, bundle: str | None, canary: bool = False) -> None:
    from distiller.commands.live import wait_until_live

    console.print(wait_until_live(settings, policy.name, bundle, canary=canary))
