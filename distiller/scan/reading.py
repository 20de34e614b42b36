"""Files to a sample of their calls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from distiller.logs.calls import HalfCall, LoggedCall, SkipReason, Source
from distiller.logs.files import LogFile
from distiller.logs.reader import HalfCalls, calls_in
from distiller.progress import Progress
from distiller.scan.rows import MOST_ROWS, RowSample
from router.errors import DatasetError

TOLD_EVERY = 500
MEGA = 10**6


def sample_of(files: Sequence[Path], only: Source | None, tell: Progress, most: int = MOST_ROWS) -> RowSample:
    """Reads all files, one line at a time.

    Raises:
        DatasetError: one cannot be read, or none holds a call; the message says why lines were not used.
    """
    sample, halves = RowSample(most), HalfCalls()
    with closing(halves):
        for path in files:
            tell.stage("reading", str(path))
            with closing(LogFile(path)) as file:
                for line in file.lines():
                    sample.sums.lines += 1
                    if sample.sums.lines % TOLD_EVERY == 0:
                        tell.step(file.done // MEGA, file.size // MEGA, f"MB, {sample.sums.calls:,} calls")
                    for found in calls_in(line.content, only):
                        joined = halves.join(found) if isinstance(found, HalfCall) else found
                        if isinstance(joined, LoggedCall):
                            sample.add(joined)
                        elif isinstance(joined, SkipReason):
                            sample.skip(joined)
        for why, times in halves.left().items():
            sample.skip(why, times)
    if not sample.sums.calls:
        reasons = "; ".join(f"{times:,} {why.value}" for why, times in sample.sums.skipped.most_common())
        raise DatasetError(f"no call of a model in {', '.join(map(str, files))}: {reasons or 'no line at all'}")
    return sample
