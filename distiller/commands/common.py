"""What the commands have in common: their options, where they print, and how they tell what is live."""

from __future__ import annotations

import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from router.contracts.files import RunFile, read_run_file, ready_state
from router.errors import LocumError
from router.policy.policy import Policy
from router.reports.terminal import Terminal
from router.settings import Settings

console = Terminal()

DEFAULT = Path("policies/default.yaml")
PolicyFile = Annotated[Path, typer.Option("--policy", "-p", help="Policy file: it names the student and the target.")]
Seed = Annotated[int, typer.Option(help="Seed of training and fitting: the same log and seed give the same student.")]
ASK_SECONDS = 5.0


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
    console.print(wait_until_live(settings, policy.name, bundle, canary=canary))


def wait_until_live(
    settings: Settings, policy: str, bundle: str | None, seconds: float = 120.0, canary: bool = False
) -> str:
    """One sentence on whether the proxy of this home serves ``bundle`` (None: the base student alone), or tries it as
    a ``canary``."""
    name, how = bundle or "the base student", "a canary beside what is live" if canary else "live"
    proxy = read_run_file(settings.run)
    if proxy is None or ready_state(proxy, ASK_SECONDS) is None:
        return f"{name} is active; no proxy is running in {settings.home}, the next one starts with it"
    start = time.monotonic()
    while (waited := time.monotonic() - start) < seconds:
        found = _policy_state(proxy, policy)
        if found is not None and _serves(found, bundle, canary):
            return f"{name} is {how} at {proxy.url} after {waited:.1f} s"
        time.sleep(0.2)
    return f"{name} is active, but {proxy.url} did not serve it within {seconds:.0f} s: see {settings.logs}"


def _serves(found: dict[str, Any], bundle: str | None, canary: bool) -> bool:
    if canary:
        return found.get("canary") == bundle
    return found.get("bundle") == bundle and bool(found.get("student", {}).get("ready"))


def _policy_state(proxy: RunFile, policy: str) -> dict[str, Any] | None:
    ready = ready_state(proxy, ASK_SECONDS)
    policies: list[dict[str, Any]] = ready.get("policies", []) if ready else []
    return next((p for p in policies if p.get("policy") == policy), None)
