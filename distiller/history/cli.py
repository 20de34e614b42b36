"""``locum import``: a log of another system as history to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distiller.logs.calls import Source
from router.policy.policy import load_policy
from router.reports.terminal import Terminal, table_of
from router.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from distiller.history.imports import ImportSummary

console = Terminal()
DEFAULT = Path("policies/default.yaml")
Logs = Annotated[list[Path], typer.Argument(help="Logs: JSON lines, a JSON array or CSV, also packed; - is stdin.")]
PolicyFile = Annotated[Path, typer.Option("--policy", "-p", help="Policy whose history it becomes.")]
Format = Annotated[Source | None, typer.Option("--from", help="Only lines of this format; else it is found by line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be kept, and why the rest not; keep nothing.")]


def import_logs(files: Logs, policy: PolicyFile = DEFAULT, only: Format = None, dry_run: DryRun = False) -> None:
    """Keep logs of other systems as history: redacted, with rights and source, once however often they come.

    Such records are learnt from where they may be, and count in nothing else: they were never audited, are no traffic
    and no money of ours. An import that was cut off goes on where it was; a log that has grown is read on.
    """
    from distiller.history.imports import LogImport
    from distiller.progress import ConsoleProgress

    chosen = load_policy(policy)
    with ConsoleProgress(console) as tell:
        found = LogImport(chosen, Settings.from_env(), tell, only, dry_run=dry_run).run(files)
    console.print(summary_table(found, "would be kept" if dry_run else "kept"))
    console.print(rights_words(found))


def summary_table(found: ImportSummary, kept: str) -> Table:
    from distiller.history.imports import LINES
    from router.store.imports import ADDED

    counts = found.counts
    table = table_of("", "", title=f"{counts[LINES]:,} lines")
    table.add_row(f"calls {kept}", f"{counts[ADDED]:,}", style="bold")
    if found.earlier:
        table.add_row("of them by an earlier import of these files", f"{found.earlier:,}")
    for reason, times in counts.most_common():
        if reason not in (LINES, ADDED) and times:
            table.add_row(f"not kept: {reason}", f"{times:,}")
    if found.pruned:
        table.add_row("imported earlier, and older now than records are kept", f"{found.pruned:,}")
    return table


def rights_words(found: ImportSummary) -> str:
    """What of the new ones may be trained on."""
    lines = [f"may be trained on, {model}: {times:,}" for model, times in sorted(found.ledger.used.items())]
    lines += [f"not to be trained on, {model}: {times:,}" for model, times in sorted(found.ledger.refused.items())]
    return "\n".join(lines)
