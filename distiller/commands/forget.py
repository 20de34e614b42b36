"""``locum distill forget``: erases what a user or a conversation left, and names what was learnt from it."""

from __future__ import annotations

from typing import Annotated

import typer

from distiller.commands.common import console
from router.settings import Settings


def forget(
    user: Annotated[str | None, typer.Option(help="The client's word for the user: a request's `user`.")] = None,
    conversation: Annotated[str | None, typer.Option(help="A conversation's id, as records have it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what there is.")] = False,
) -> None:
    """Erase a user's or a conversation's records, of every policy, and list the bundles that were trained on them.

    Kept answers to them and their rows in a round under way go too. A student cannot unlearn: each bundle and each
    dataset that they went into is named, for you to replace. A proxy that runs goes on.
    """
    from distiller.erasure import erase, left_of, left_tables

    if (user is None) == (conversation is None):
        raise typer.BadParameter("give one of --user and --conversation")
    settings = Settings.from_env()
    whose = {"user": user, "conversation": conversation}
    left = left_of(settings, **whose)
    if left.nothing:
        console.print("Nothing is there of them.")
        return
    for table in left_tables(left):
        console.print(table)
    if dry_run:
        console.print("Nothing was erased.")
        return
    if not yes:
        typer.confirm(f"Erase {len(left.traces.request_ids)} records for good?", abort=True)
    console.print(f"{erase(settings, left, **whose)} records erased.")
    if any(use.trained for use in left.bundles):
        console.print("`locum distill run --force` trains a student without them; bundles that learnt from them stay.")
