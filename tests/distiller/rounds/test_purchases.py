"""What a round pays for before its dataset is built: each once, and what it brings is trained on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from distiller.config import Configs
from distiller.data.files import read
from distiller.history.imports import LogImport
from distiller.home import RoundKind
from distiller.progress import SilentProgress
from distiller.rounds.material import Material
from distiller.rounds.purchases import Purchases
from distiller.rounds.trigger import Tally, count, due
from router.contracts.records import Record
from router.contracts.rounds import label_spending
from router.policy.policy import Policy
from router.settings import Settings
from router.store.access import open_readonly, open_store
from tests.distiller.labels.label_server import LabelServer
from tests.distiller.labels.test_labels import log, policy_of
from tests.fakes import served


@pytest.fixture
def server() -> Iterator[LabelServer]:
    upstream = LabelServer()
    with served(upstream) as url:
        upstream.url = url
        yield upstream


def home(folder: Path, policy: Policy, records: list[Record]) -> Settings:
    settings = Settings(home=folder / "home", cache=folder / "cache")
    store = open_store(settings, [policy])

    async def write() -> None:
        for one in records:
            store.append(one)
        await store.flush()

    asyncio.run(write())
    store.close()
    return settings


def bought(policy: Policy, settings: Settings) -> tuple[Purchases, Material]:
    material = Material(policy, settings, kind=RoundKind.TRAIN, seed=0, configs=Configs(), tell=SilentProgress())
    purchases = Purchases()
    purchases.make(material, lambda: None, 0)
    return purchases, material


def test_a_forbidden_teachers_round_trains_on_the_label_teachers_answers(server: LabelServer, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, server)
    settings = home(tmp_path, policy, log())
    purchases, material = bought(policy, settings)
    assert purchases.labels is not None and purchases.usd == Decimal(purchases.labels.cost_usd) > 0
    train = read(material.dataset.train)
    assert len(train) == purchases.labels.rows > 20
    assert {(row.teacher, row.rights) for row in train} == {("open-weights", "allowed")}
    assert {row.teacher for row in read(material.dataset.holdout)} == {"big"}
    assert not (material.work.folder / "unlabelled").exists()


def test_a_round_that_was_cut_off_after_its_labels_asks_for_none_again(server: LabelServer, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, server)
    settings = home(tmp_path, policy, log())
    first, _ = bought(policy, settings)
    asked = len(server.seen)
    again, material = bought(policy, settings)
    assert again == first and len(server.seen) == asked
    assert material.dataset.counts["train"] == first.labels.rows if first.labels else False
    assert len(label_spending(settings.work("p"))) == 1


def test_records_that_a_label_teacher_answers_make_a_round_due(server: LabelServer, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, server)
    settings = home(tmp_path, policy, log())
    tally = count(open_readonly(settings), policy)
    assert tally.trainable == 50 and tally.audited == 25


def test_a_policy_that_never_learns_says_so_where_it_waits_for_records(server: LabelServer, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, server)
    never = policy.model_copy(update={"distil": policy.distil.model_copy(update={"labels_from": None})})
    kind, why = due(never, Tally(), [])
    assert kind is None and "never learns, since big's own may not be trained on" in why and "labels_from" in why


def test_answers_that_were_imported_and_may_not_be_learnt_from_are_answered_again_too(
    server: LabelServer, tmp_path: Path
) -> None:
    policy = policy_of(tmp_path, server)
    settings = home(tmp_path, policy, log())
    lines = [
        {"model": "gpt-5", "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "cards"}]}
        for text in ("my card was eaten by a machine in rome", "who do i call about a chip that fails")
    ]
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    LogImport(policy, settings, SilentProgress()).run([file])
    assert count(open_readonly(settings), policy).trainable == 52
    _, material = bought(policy, settings)
    train = {row.messages[-1]["content"]: row for row in read(material.dataset.train)}
    mine = [train[line["messages"][0]["content"]] for line in lines if line["messages"][0]["content"] in train]
    assert mine and all((row.teacher, row.rights) == ("open-weights", "allowed") for row in mine)
