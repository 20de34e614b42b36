"""``locum scan``: a log, and what it tells before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distiller.logs.calls import Source
from router.errors import DatasetError
from router.reports.terminal import Terminal
from router.settings import Settings

console = Terminal()
Files = Annotated[
    list[Path], typer.Argument(help="Logs: JSON lines, a JSON array or CSV, also packed (gzip); - is stdin.")
]
Format = Annotated[
    Source | None, typer.Option("--from", help="Lines of this format alone; found line by line without.")
]


def scan(
    files: Files,
    only: Format = None,
    html: Annotated[Path | None, typer.Option(help="Also write the report as one HTML page, plots in it.")] = None,
) -> None:
    """Say what a log tells: kinds of requests, how closed their answers are, what a head would have carried, money.

    Needs nothing but the file: no policy, no key, no network. Nothing of it is kept.
    """
    from distiller.progress import ConsoleProgress
    from distiller.scan.report import scan_of
    from distiller.scan.rows import sample_of
    from distiller.scan.tables import report
    from router.scoring.text.encoder import kept_encoder

    with ConsoleProgress(console) as tell:
        sample = sample_of(files, only, tell)
        tell.stage("looking", f"{sample.sums.calls:,} calls")
        found = scan_of(sample, [str(file) for file in files], kept_encoder(Settings.from_env().cache))
    console.print(report(found))
    if html is not None:
        from distiller.scan.page import page

        try:
            html.write_text(page(found), encoding="utf-8")
        except OSError as e:
            raise DatasetError(f"cannot write {html}: {e.strerror}") from e
        console.print(f"{html} written")
