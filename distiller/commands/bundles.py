"""Bundles by hand: what there is, which one is live, and back to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distiller.commands.common import DEFAULT, PolicyFile, console, say_live
from router.contracts.bundles import activate as activate_bundle
from router.contracts.bundles import read_active, read_manifest
from router.contracts.bundles import rollback as rollback_bundle
from router.errors import BundleError
from router.policy.policy import load_policy
from router.settings import Settings


def list_bundles(policy: PolicyFile = DEFAULT) -> None:
    """List every bundle: its parent, what it was trained on, the share it can carry, and the gate's word."""
    from distiller.commands.tables import bundle_table

    chosen, settings = load_policy(policy), Settings.from_env()
    console.print(bundle_table(settings.bundles(chosen.name), chosen))


def rollback(policy: PolicyFile = DEFAULT) -> None:
    """Go back to the bundle before: student, scorer and thresholds together, without a restart.

    Call it again to undo it. While a canary is under way it ends that instead, and what is live stays.
    """
    chosen, settings = load_policy(policy), Settings.from_env()
    bundles = settings.bundles(chosen.name)
    active = read_active(bundles)
    _must_serve(bundles, active.bundle if active.canary else active.previous)
    say_live(chosen, settings, rollback_bundle(bundles).bundle)


def activate(
    bundle: Annotated[str, typer.Argument(help="A bundle's id from `locum distill list`, or `base`.")],
    policy: PolicyFile = DEFAULT,
) -> None:
    """Make a bundle live, whatever the gate said; `base` is the student without any bundle. A canary ends with it."""
    chosen, settings = load_policy(policy), Settings.from_env()
    bundles, wanted = settings.bundles(chosen.name), None if bundle == "base" else bundle
    _must_serve(bundles, wanted)
    say_live(chosen, settings, activate_bundle(bundles, wanted).bundle)


def _must_serve(bundles: Path, bundle: str | None) -> None:
    """Raises BundleError where the bundle is unknown, or its weights were pruned."""
    from distiller.bundles import has_weights

    if bundle is None:
        return
    try:
        manifest = read_manifest(bundles, bundle)
    except FileNotFoundError as e:
        raise BundleError(f"no complete bundle {bundle!r}; `locum distill list` shows them") from e
    if not has_weights(bundles, manifest):
        raise BundleError(f"the weights of bundle {bundle} were pruned; only newer ones can serve")
