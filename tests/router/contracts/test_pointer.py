"""The pointer: what is live, what was before, and a canary that ends once, whoever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from router.contracts.bundles import (
    ACTIVE,
    MANIFEST,
    ActivePointer,
    activate,
    begin_canary,
    end_canary,
    read_active,
    rollback,
)
from tests.fakes import until

WRITER = """
import sys, itertools
from pathlib import Path
from router.contracts.bundles import begin_canary, end_canary
folder = Path(sys.argv[1])
print("writing", flush=True)
for n in itertools.count():
    begin_canary(folder, "b2")
    end_canary(folder, "b2", kept=False, reasons=("no",) * 2000)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three complete bundles, the first of them live."""
    for name in ("b1", "b2", "b3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text("{}")
    activate(tmp_path, "b1")
    return tmp_path


def test_a_pointer_older_than_canaries_has_none(tmp_path: Path) -> None:
    (tmp_path / ACTIVE).write_text('{"bundle": "b1", "previous": null, "changed_at": 5.0}')
    assert read_active(tmp_path) == ActivePointer(bundle="b1", changed_at=5.0)


def test_a_canary_moves_nothing_until_it_is_kept(folder: Path) -> None:
    before = read_active(folder)
    began = begin_canary(folder, "b2")
    assert began.canary is not None and began.canary.bundle == "b2"
    assert began.model_copy(update={"canary": None}) == before
    kept = end_canary(folder, "b2", kept=True, reasons=("no worse",))
    assert kept is not None and (kept.bundle, kept.previous, kept.canary) == ("b2", "b1", None)
    assert kept.ended is not None and kept.ended.kept and kept.ended.reasons == ("no worse",)
    assert rollback(folder).bundle == "b1", "a kept canary is rolled back as any bundle"


def test_a_canary_that_is_rolled_back_leaves_what_is_live_and_what_was_before(folder: Path) -> None:
    activate(folder, "b3")
    before = begin_canary(folder, "b2")
    ended = end_canary(folder, "b2", kept=False, reasons=("worse",))
    assert ended is not None and ended.ended is not None and not ended.ended.kept
    assert (ended.bundle, ended.previous, ended.changed_at) == ("b3", "b1", before.changed_at)


def test_who_comes_second_changes_nothing(folder: Path) -> None:
    begin_canary(folder, "b2")
    end_canary(folder, "b2", kept=False, reasons=("first",))
    after = read_active(folder)
    assert end_canary(folder, "b2", kept=True, reasons=("second",)) is None
    assert end_canary(folder, "b3", kept=True, reasons=("another",)) is None
    assert read_active(folder) == after


def test_a_hand_on_the_pointer_ends_the_canary(folder: Path) -> None:
    begin_canary(folder, "b2")
    back = rollback(folder)
    assert back.bundle == "b1" and back.ended is not None and not back.ended.kept
    begin_canary(folder, "b2")
    chosen = activate(folder, "b2")
    assert chosen.bundle == "b2" and chosen.canary is None and chosen.ended is not None and chosen.ended.kept
    begin_canary(folder, "b3")
    other = activate(folder, "b1")
    assert other.bundle == "b1" and other.ended is not None and not other.ended.kept


def test_what_serves_survives_a_damaged_pointer(folder: Path) -> None:
    (folder / ACTIVE).write_text("{")
    assert end_canary(folder, "b2", kept=False, reasons=("it fails",)) is None
    assert (folder / ACTIVE).read_text() == "{"


def test_a_bundle_that_is_not_complete_is_no_canary(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no complete bundle 'b9'"):
        begin_canary(folder, "b9")
    assert read_active(folder).canary is None


@pytest.mark.parametrize("moments", [3, 40])
def test_a_kill_in_the_middle_leaves_a_whole_pointer_and_no_lock(folder: Path, moments: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
    stamps: set[int] = set()
    until(lambda: stamps.add((folder / ACTIVE).stat().st_mtime_ns) or len(stamps) > moments)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert read_active(folder).bundle == "b1"
    assert begin_canary(folder, "b3").canary is not None, "the lock died with its holder"
