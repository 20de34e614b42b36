"""Forgetting somebody: what is erased, what is only named, and that a round under way learns nothing of them."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from typer.testing import CliRunner, Result

from distiller.bundles import ANSWERS, Draft, write_bundle
from distiller.cli import app
from distiller.data import registry
from distiller.data.dataset import build, load, read
from distiller.data.files import ids
from distiller.data.rows import DatasetRow, alias, row_of
from distiller.erasure import left_of
from distiller.evaluation.answers import StudentAnswer, keep_answers, read_answers
from distiller.home import RoundRunning, Work, one_round_at_a_time
from distiller.payments import Journal, PendingBatch
from distiller.synthesis import shelf
from router.backends.client import Completion
from router.contracts.bundles import DatasetRef, Thresholds
from router.contracts.records import Record
from router.contracts.rounds import synthetic_spending
from router.judges.judge import Judges
from router.scoring.scorer import Scorer
from router.settings import Settings
from router.store.access import open_readonly, open_store
from tests.distiller.tiny_student import policy, record

POLICY = policy()


def log(settings: Settings) -> list[Record]:
    """30 requests by jo and 30 by others, the first five of each audited."""
    records = [
        record(
            i,
            f"question {i * 7919} about {i * 31}",
            f"answer {i}",
            user="jo" if i % 2 else f"u{i}",
            audited=i < 10,
            at=1_900_000_000.0 + i,
        )
        for i in range(60)
    ]
    with closing(open_store(settings, [POLICY])) as store:
        for each in records:
            store.append(each)
    return records


def bundle(settings: Settings, trained_on: Path, learnt: frozenset[str], answered: list[str]) -> str:
    answers = settings.home / "kept.jsonl"
    answers.unlink(missing_ok=True)
    keep_answers(answers, [answer(name) for name in answered])
    draft = Draft(
        Scorer.fit([], None),
        Thresholds(route=0.5, accept=0),
        DatasetRef(sha256="0", train=0, dev=0, holdout=0),
        trained_on=trained_on,
        learnt=learnt,
        answers=answers,
    )
    return write_bundle(settings.bundles("default"), POLICY, draft).bundle_id


def answer(name: str) -> StudentAnswer:
    return StudentAnswer(request_id=name, message={"role": "assistant", "content": "secret words"})


def forget(settings: Settings, *more: str, typed: str | None = None) -> Result:
    env = {"LOCUM_HOME": str(settings.home), "COLUMNS": "300"}
    return CliRunner().invoke(app, ["forget", *more], env=env, input=typed)


def users(settings: Settings) -> set[str | None]:
    with closing(open_readonly(settings)) as store:
        return {r.user for _, r in store.records()}


def test_records_and_kept_answers_go_and_the_bundle_and_the_dataset_are_named(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    records = log(settings)
    data = build(records, POLICY, tmp_path / "mine")
    registry.remember(settings.home, data.folder)
    made = bundle(settings, data.train, frozenset({"req-1", "req-2"}), ["req-1", "req-3", "req-4"])
    other = bundle(settings, data.holdout, frozenset(), [])
    (settings.bundles("default") / other / "dataset" / "train.jsonl").write_text('{"request_id": "somebody"}\n')
    mine = len({f"req-{i}" for i in range(1, 60, 2)} & ids(data.train))
    shown = forget(settings, "--user", "jo", "--yes")
    assert shown.exit_code == 0, shown.output
    row = next(line for line in shown.output.splitlines() if made in line)
    assert [int(word) for word in row.split() if word.isdigit()] == [mine, 1, 2]
    assert other not in shown.output
    assert str(data.folder) in shown.output and "build it again" in shown.output
    assert "30 records erased" in shown.output
    assert "jo" not in users(settings) and len(users(settings)) == 30
    assert set(read_answers(settings.bundles("default") / made / ANSWERS)) == {"req-4"}
    assert forget(settings, "--conversation", "conv-1", "--dry-run").exit_code == 0


def test_nothing_is_erased_without_a_yes(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    log(settings)
    assert "Nothing was erased" in forget(settings, "--user", "jo", "--dry-run").output
    refused = forget(settings, "--user", "jo", typed="n\n")
    assert refused.exit_code == 1 and "Erase 30 records" in refused.output
    assert "jo" in users(settings)
    forget(settings, "--user", "jo", typed="y\n")
    assert "jo" not in users(settings)
    assert "Nothing is there" in forget(settings, "--user", "jo").output


def test_one_of_user_and_conversation_must_be_given(tmp_path: Path) -> None:
    for wrong in ((), ("--user", "jo", "--conversation", "c")):
        assert forget(Settings(home=tmp_path), *wrong).exit_code == 2


def test_a_round_under_way_goes_on_without_the_rows_and_trains_anew(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    records = log(settings)
    settings.bundles("default").mkdir(parents=True)
    work = Work.open(settings.work("default"), {"kind": "train"})
    built = work.stage("dataset", lambda: {"sha256": build(records, POLICY, work.folder / "dataset").sha256})
    work.stage("train", lambda: {"seconds": 1})
    (work.folder / "student").mkdir()
    keep_answers(work.folder / "incumbent.jsonl", [answer("req-1"), answer("req-2")])
    before = load(work.folder / "dataset")
    shown = forget(settings, "--user", "jo", "--yes")
    assert "taken out of the round" in shown.output
    after = load(work.folder / "dataset")
    assert after.sha256 != before.sha256 == built["sha256"]
    assert after.counts == {s: len(read(getattr(after, s))) for s in ("train", "dev", "holdout")}
    assert after.rights.used == {"openai/gpt-5: allowed": after.counts["train"]}
    kept = ids(after.train) | ids(after.dev) | ids(after.holdout)
    assert kept == {f"req-{i}" for i in range(0, 60, 2)}
    assert set(read_answers(work.folder / "incumbent.jsonl")) == {"req-2"}
    left = {p.name for p in work.folder.iterdir()}
    assert left == {"round.json", "stage-dataset.json", "dataset", "incumbent.jsonl"}


def test_a_round_that_is_running_is_not_pulled_from_under(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    log(settings)
    with one_round_at_a_time(settings):
        refused = forget(settings, "--user", "jo", "--yes")
    assert isinstance(refused.exception, RoundRunning)
    assert "jo" in users(settings)


def test_rows_are_found_whose_records_were_dropped_before_and_so_are_exports(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    records = log(settings)
    data = build(records, POLICY, tmp_path / "mine")
    made = bundle(settings, data.train, frozenset(), [])
    registry.remember(settings.home, data.folder)
    export = tmp_path / "train.openai.jsonl"
    export.write_text("{}\n")
    registry.remember(settings.home, data.folder, export=export)
    settings.records_db.unlink()
    mine = [r for split in (data.train, data.dev, data.holdout) for r in read(split) if r.user == alias("jo")]
    left = left_of(settings, user="jo")
    assert left.traces.request_ids == () and left.requests == {r.request_id for r in mine}
    assert [use.bundle for use in left.bundles] == [made]
    assert left.datasets[0].exports == (export,)
    assert sum(left.datasets[0].rows.values()) == len(mine)


def test_what_a_teacher_wrote_like_their_requests_goes_too(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    rows = [row for r in log(settings) if isinstance(row := row_of(r, POLICY, Judges(POLICY.judge)), DatasetRow)]
    like_jo, like_others = (
        replace(rows[0], request_id=name, user=None, conversation_id=name, synthetic=True, shown=shown)
        for name, shown in (("synthetic-1", ["req-0", "req-1"]), ("synthetic-2", ["req-0", "req-2"]))
    )
    shelf.keep(settings, "default", [like_jo, like_others])
    data = build([], POLICY, tmp_path / "mine", written=[like_jo, replace(like_others, messages=rows[1].messages)])
    registry.remember(settings.home, data.folder)
    made = bundle(settings, data.train, frozenset(), [])
    left = left_of(settings, user="jo")
    assert left.synthetic == {"synthetic-1"} and len(left.requests) == 31
    assert [(use.bundle, use.trained) for use in left.bundles] == [(made, 1)]
    assert left.datasets[0].rows == {"train": 1}
    assert "synthetic rows written like them, to erase" in forget(settings, "--user", "jo", "--dry-run").output
    assert [row.request_id for row in shelf.everything(settings, "default")] == ["synthetic-1", "synthetic-2"]
    forget(settings, "--user", "jo", "--yes")
    assert [row.request_id for row in shelf.everything(settings, "default")] == ["synthetic-2"]


def test_a_killed_run_of_synthesis_that_had_looked_at_them_is_given_up_and_its_money_booked(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    records = log(settings)
    folder = settings.work("default") / "synthesis"
    build(records, POLICY, folder / "dataset")
    (folder / "run.json").write_text(json.dumps({"run": "one", "at": 1.0}))
    journal = Journal(folder / "calls.jsonl")
    journal.ended("write", Completion({"content": "like what jo said"}, "stop", None, Decimal(0)), Decimal("0.25"))
    journal.close()
    shown = forget(settings, "--user", "jo", "--yes")
    assert "go with the killed run" in shown.output
    assert not folder.exists()
    assert [s["cost_usd"] for s in synthetic_spending(settings.work("default"))] == ["0.25"]


def test_what_a_label_teacher_answered_to_them_goes_too_and_its_money_stays_counted(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    log(settings)
    path = settings.work("default") / "labels.jsonl"
    journal = Journal(path)
    said = Completion({"content": "an echo of jo"}, "stop", None, Decimal(0))
    for name, of in (("label-1", "req-1"), ("label-2", "req-2")):
        journal.begins(name, Decimal(1), of)
        journal.ended(name, said, Decimal("0.25"))
    journal.begins("label-3", Decimal("0.5"), "req-3")
    journal.batch_begins(
        PendingBatch("b", "m", {"label-5": Decimal(1), "label-6": Decimal(2)}), {"label-5": "req-5", "label-6": "req-6"}
    )
    journal.close()
    before = Journal(path).spent
    assert forget(settings, "--user", "jo", "--yes").exit_code == 0
    kept = Journal(path)
    assert (kept.known("label-1"), kept.known("label-2") is not None) == (None, True)
    assert b"req-1" not in path.read_bytes() and b"req-5" not in path.read_bytes()
    assert list(kept.batches["b"].held) == ["label-6"]
    assert kept.spent == before - 1  # what is held for an answer that may still come is told when it does


def test_a_bundle_of_an_older_version_is_read_as_it_is(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    records = log(settings)
    rows = tmp_path / "train.jsonl"
    rows.write_text("".join(json.dumps({"request_id": r.request_id}) + "\n" for r in records))
    made = bundle(settings, rows, frozenset(), [])
    assert [(use.bundle, use.trained) for use in left_of(settings, conversation="conv-3").bundles] == [(made, 1)]
