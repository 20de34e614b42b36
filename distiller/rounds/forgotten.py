"""What of somebody is there, in a terminal, before it is erased."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Column, Table
from rich.text import Text

from distiller.home import CURRENT
from distiller.rounds.forgetting import Left
from distiller.synthesis.run import FOLDER as SYNTHESIS

FATES = {
    None: "stay: build it again, or delete it",
    CURRENT: "taken out of the round",
    SYNTHESIS: "go with the killed run",
}


def left_tables(left: Left) -> Iterator[Table]:
    """The records, the bundles that they went into, and the datasets that hold rows of theirs."""
    table = Table(show_header=False, title="records", title_justify="left")
    table.add_row("records to erase", str(len(left.traces.request_ids)))
    if gone := len(left.requests) - len(left.synthetic) - len(left.traces.request_ids):
        table.add_row("only datasets know of, their records being gone", str(gone))
    if left.synthetic:
        table.add_row("synthetic rows written like them, to erase", str(len(left.synthetic)))
    yield table
    if left.bundles:
        heads = ("trained on", "scorer learnt from", "kept answers, erased")
        columns = (Column(h, justify="right") for h in heads)
        table = Table("policy", Column("bundle", no_wrap=True), *columns, title="bundles", title_justify="left")
        for use in left.bundles:
            name = use.bundle if use.serves else f"{use.bundle} (weights pruned)"
            table.add_row(use.policy, name, str(use.trained), str(use.scorer), str(use.answers))
        yield table
    if left.datasets:
        table = Table("dataset", "rows", "what becomes of them", title="datasets", title_justify="left")
        for data in left.datasets:
            rows = ", ".join(f"{split} {n}" for split, n in data.rows.items())
            fate = FATES[data.work]
            exports = "".join(f"\nand of {path}" for path in data.exports)
            table.add_row(Text(str(data.folder), overflow="fold"), rows, Text(fate + exports, overflow="fold"))
        yield table
