from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from distiller.data.dataset import build
from distiller.data.rows import Skip
from distiller.history.imports import LINES, ImportSummary, LogImport
from distiller.logs.calls import SkipReason
from distiller.progress import SilentProgress
from distiller.rounds.trigger import count
from router.contracts.records import Record, Rights
from router.policy.policy import Policy
from router.settings import Settings
from router.store.access import open_eraser, open_readonly
from router.store.imports import ADDED, KNOWN
from router.store.supported_time import machine_uptime
from tests.distiller.logs.lines import BATCH, BATCH_ANSWER, EVERY, LITELLM, SAID
from tests.distiller.tiny_student import policy as policy_of
from tests.fakes import until


def line(number: int, **changes: Any) -> dict[str, Any]:
    """A call that no other is."""
    asked = [{"role": "system", "content": "Name the intent."}, {"role": "user", "content": f"Where is card {number}?"}]
    return {
        "id": f"c-{number}",
        "created": 1_760_000_000 + number,
        "model": "qwen3-32b",
        "messages": [*asked, SAID],
        **changes,
    }


def written(path: Path, lines: Iterable[Any]) -> Path:
    path.write_bytes(b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def policy() -> Policy:
    return policy_of()


def imported(settings: Settings, policy: Policy, *files: Path, dry: bool = False) -> ImportSummary:
    return LogImport(policy, settings, SilentProgress(), dry_run=dry).run(files)


def history(settings: Settings, policy: Policy) -> list[Record]:
    return [record for _, record in open_readonly(settings).history(policy.name)]


def test_what_is_imported_is_history_and_nothing_else(tmp_path: Path, settings: Settings, policy: Policy) -> None:
    found = imported(settings, policy, written(tmp_path / "log", map(line, range(9))))
    assert (found.counts[LINES], found.counts[ADDED]) == (9, 9)
    first = history(settings, policy)[0]
    assert (first.created_at, first.answers[0].message, first.imported and first.imported.source) == (
        1_760_000_000,
        SAID,
        "openai",
    )
    assert (first.is_traffic, first.counts_for, first.cost_usd, first.saved_usd) == (False, None, 0, 0)
    assert not first.decision.audited
    log = open_readonly(settings)
    assert list(log.records(embeddings=True)) == list(log.scored(policy.name)) == list(log.audits(policy.name)) == []
    assert log.get(first.request_id) == first


def test_three_formats_in_one_file_with_odd_lines_are_all_kept_or_counted(
    tmp_path: Path, settings: Settings, policy: Policy
) -> None:
    lines = [
        *EVERY.values(),
        b"{broken",
        b"\xff\xfe\xfa",
        b"[]",
        b"nonsense",
        {**LITELLM, "request_id": "x", "response": None},
    ]
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(written(tmp_path / "plain", [*lines, *lines]).read_bytes()))
    found = imported(settings, policy, path)
    calls, counts = len(EVERY), found.counts
    assert counts[LINES] == 2 * len(lines)
    assert (counts[ADDED], counts[ADDED] + counts[KNOWN]) == (9, 2 * calls)  # some formats tell of the same call
    assert counts[SkipReason.NO_CALL.value] == 2
    assert counts[SkipReason.BROKEN.value] == 6
    assert counts[SkipReason.UNKNOWN.value] == counts[SkipReason.NO_ANSWER.value] == 2
    assert counts.total() - counts[LINES] == counts[LINES] + 2  # one line holds two spans
    sources = {record.imported.source for record in history(settings, policy) if record.imported}
    assert sources == {"openai", "langfuse", "otel"}  # LiteLLM's line tells of a call that one of OpenAI's does


def test_the_same_log_is_kept_once_and_a_grown_one_goes_on(tmp_path: Path, settings: Settings, policy: Policy) -> None:
    path = written(tmp_path / "log", map(line, range(50)))
    assert imported(settings, policy, path).earlier == 0
    again = imported(settings, policy, path)
    assert (again.earlier, again.counts[ADDED], again.counts[KNOWN]) == (50, 50, 0)
    written(path, map(line, range(60)))
    grown = imported(settings, policy, path)
    assert (grown.earlier, grown.counts[ADDED], grown.counts[LINES], grown.counts[KNOWN]) == (50, 60, 60, 0)
    copy = written(tmp_path / "copy", map(line, range(1, 60)))
    assert imported(settings, policy, copy).counts[KNOWN] == 59
    assert len(history(settings, policy)) == 60


def test_a_file_that_begins_alike_is_read_from_its_start(tmp_path: Path, settings: Settings, policy: Policy) -> None:
    path = written(tmp_path / "log", map(line, range(60)))
    imported(settings, policy, path)
    written(path, [*map(line, range(40)), *map(line, range(100, 120))])
    found = imported(settings, policy, path)
    assert (found.counts[LINES], found.counts[ADDED], found.counts[KNOWN]) == (60, 20, 40)
    written(path, map(line, range(30)))
    assert imported(settings, policy, path).counts[KNOWN] == 30


def test_halves_of_a_batch_meet_across_files_and_imports(tmp_path: Path, settings: Settings, policy: Policy) -> None:
    asked, said = written(tmp_path / "asked", [BATCH]), written(tmp_path / "said", [BATCH_ANSWER])
    assert imported(settings, policy, said).counts[SkipReason.NO_PARTNER.value] == 1
    assert imported(settings, policy, asked).counts[SkipReason.NO_ANSWER.value] == 1
    found = imported(settings, policy, said, asked)
    assert found.counts[ADDED] == 1
    assert imported(settings, policy, asked, said).counts[ADDED] == 1
    assert len(history(settings, policy)) == 1


def test_a_dry_run_says_the_same_and_keeps_nothing(tmp_path: Path, settings: Settings, policy: Policy) -> None:
    path = written(tmp_path / "log", [*map(line, range(9)), line(3), b"{"])
    dry = imported(settings, policy, path, dry=True)
    assert not settings.home.exists()
    assert dry.counts == imported(settings, policy, path).counts
    assert dry.counts[ADDED] == 9


def test_what_redaction_changes_is_kept_and_never_learnt(tmp_path: Path, settings: Settings, policy: Policy) -> None:
    asked = [{"role": "user", "content": "Write to ann@example.org about her card."}]
    imported(settings, policy, written(tmp_path / "log", [{"messages": [*asked, SAID], "user_id": "ann@example.org"}]))
    (record,) = history(settings, policy)
    assert record.redacted
    assert b"ann@example" not in settings.records_db.read_bytes() + b"".join(
        path.read_bytes() for path in settings.home.glob("records.db-*")
    )
    found = build([record], policy, tmp_path / "dataset")
    assert found.skipped == {Skip.REDACTED.value: 1}


def test_history_trains_where_it_may(tmp_path: Path, settings: Settings, policy: Policy) -> None:
    stated = policy.model_copy(
        update={"teacher": policy.teacher.model_copy(update={"i_have_the_right_to_train_on": ("qwen3-32b",)})}
    )
    lines = [
        *(line(n, model="qwen3-32b") for n in range(20)),
        *(line(n, model="claude-opus-5.5") for n in range(20, 40)),
    ]
    found = imported(settings, stated, written(tmp_path / "log", lines))
    assert found.ledger.as_dict() == {"used": {"qwen3-32b: stated": 20}, "refused": {"claude-opus-5.5: forbidden": 20}}
    records = history(settings, stated)
    assert {r.answers[0].training_rights for r in records} == {Rights.UNKNOWN, Rights.FORBIDDEN}
    made = build(records, stated, tmp_path / "dataset")
    assert made.counts["holdout"] == 0
    assert made.skipped[Skip.NO_RIGHT.value] > 0
    assert set(made.rights.used) == {"qwen3-32b: stated"}
    tally = count(open_readonly(settings), stated)
    assert (tally.trainable, tally.audited) == (20, 0)
    assert count(open_readonly(settings), stated, tally) == tally


def test_an_imported_user_is_forgotten(tmp_path: Path, settings: Settings, policy: Policy) -> None:
    imported(settings, policy, written(tmp_path / "log", [line(1, user_id="ann"), line(2, user_id="bob")]))
    eraser = open_eraser(settings)
    assert eraser.erase(eraser.find(user="ann")) == 1
    assert [record.user for record in history(settings, policy)] == ["bob"]


def test_history_is_kept_from_its_import_on_for_as_long_as_records_are(
    tmp_path: Path, settings: Settings, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "log", map(line, range(5)))
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: 1_790_000_000.0)
        imported(settings, policy, path)
        assert len(history(settings, policy)) == 5
        later, up = 86_400.0 * (policy.log.retention_days + 1), machine_uptime()
        patch.setattr("time.time", lambda: 1_790_000_000.0 + later)
        patch.setattr("time.clock_gettime", lambda _: up + later)
        assert imported(settings, policy, written(tmp_path / "other", [line(9)])).pruned == 5
    assert len(history(settings, policy)) == 1


def test_halves_of_characters_are_mended_and_not_learnt(tmp_path: Path, settings: Settings, policy: Policy) -> None:
    broken = json.dumps(line(1)).replace("card_arrival", "card \\ud83d arrival").encode()
    imported(settings, policy, written(tmp_path / "log", [broken]))
    (record,) = history(settings, policy)
    assert build([record], policy, tmp_path / "dataset").skipped == {Skip.NOT_UNICODE.value: 1}


RUN = """
import re, sys
from pathlib import Path
from distiller.history.imports import ADDED, KNOWN, LogImport
from distiller.progress import SilentProgress
from router.policy.policy import load_policy
from router.settings import Settings
policy, home, file = map(Path, sys.argv[1:])
found = LogImport(load_policy(policy), Settings(home=home), SilentProgress()).run([file])
megabytes = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
print(found.counts[ADDED], found.counts[KNOWN], found.earlier, megabytes)
"""
POLICY = Path(__file__).parents[3] / "policies" / "default.yaml"


def run(settings: Settings, path: Path) -> list[int]:
    """(kept, known, kept earlier, megabytes) by a process of its own."""
    command = [sys.executable, "-c", RUN, str(POLICY), str(settings.home), str(path)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=300)
    return [int(word) for word in done.stdout.split()]


def test_a_killed_import_goes_on_and_loses_and_doubles_nothing(tmp_path: Path, settings: Settings) -> None:
    path = written(tmp_path / "log", map(line, range(4000)))
    command = [sys.executable, "-c", RUN, str(POLICY), str(settings.home), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def begun() -> bool:
        return settings.records_db.exists() and next(open_readonly(settings).history("default"), None) is not None

    until(begun)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = sum(1 for _ in open_readonly(settings).history("default"))
    kept, known, earlier, _ = run(settings, path)
    assert (kept, known) == (4000, 0)
    assert earlier == before > 0
    assert sum(1 for _ in open_readonly(settings).history("default")) == 4000


def test_memory_stays_bounded_whatever_the_size(tmp_path: Path, settings: Settings) -> None:
    filler = "word " * 20_000
    lines = ({"messages": [{"role": "user", "content": f"{n} {filler}"}, SAID]} for n in range(200))
    path = written(tmp_path / "log", lines)
    with path.open("ab") as file:  # and a line of 30 MB, and one of 50, which is longer than any call
        for size in (30_000_000, 50_000_000):
            picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * size}}
            file.write(json.dumps({"messages": [{"role": "user", "content": [picture]}, SAID]}).encode() + b"\n")
    kept, _, _, megabytes = run(settings, path)
    assert kept == 201
    assert megabytes < 500
