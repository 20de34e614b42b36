"""The economics of a policy, by hand; and `locum distill economics` as a user types it."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from distiller.cli import app
from distiller.economics.flow import Flow
from distiller.economics.report import Economics, Inputs, economics
from router.contracts.decision import Tier
from router.contracts.records import AnswerKind, Audit, Usage
from router.contracts.rounds import SYNTHETIC
from router.errors import LocumError
from router.policy.policy import Policy
from router.settings import Settings
from tests.distiller.economics.test_flow import answer, line, logged, policy, record


def flow(days: float = 10.0) -> Flow:
    """1,000 requests in 10 days: 400 that the student served at 0.0002 each and 0.0001 of audits, 600 that the teacher
    served at 0.002. The teacher alone would have cost 0.002 each."""
    made = Flow(first_at=0.0, last_at=days * 86_400)
    made.served.update({Tier.STUDENT: 400, Tier.TEACHER: 600})
    made.own.update({Tier.STUDENT: Decimal("0.08"), Tier.TEACHER: Decimal("1.2")})
    made.beside.update({Tier.STUDENT: Decimal("0.04"), Tier.TEACHER: Decimal(0)})
    made.alone, made.swapped = Decimal(2), Decimal("0.12")
    made.by_kind.update({AnswerKind.SERVED: Decimal("1.28"), AnswerKind.AUDITED: Decimal("0.04")})
    made.tokens = Usage(input_tokens=100_000, output_tokens=20_000)
    return made


def reckoned(rounds: list[dict[str, Any]], days: float = 10.0, **inputs: Any) -> Economics:
    values: dict[str, Any] = {"usd_per_hour": Decimal("0.6"), "audit_rate": 0.02, "payback_days": 30.0}
    return economics(flow(days), rounds, Inputs(**(values | inputs)))


def test_a_month_is_told_net_of_audits_and_of_rounds() -> None:
    found = reckoned([line(0.0, 0.4)])  # an hour of the machine
    assert (found.requests_per_day, found.share, found.tokens) == (100.0, 0.4, (100.0, 20.0))
    assert found.alone == 6  # 3,000 requests a month at 0.002
    assert found.spent == {"served": Decimal("3.84"), "audited": Decimal("0.12")}
    assert found.saved == Decimal("2.04")
    assert (found.rounds_per_month, found.rounds) == (3.0, Decimal("1.8"))  # one in these 10 days
    assert found.saved - found.fixed == Decimal("0.24")


def test_the_last_round_pays_by_the_share_that_it_gained() -> None:
    done = reckoned([line(0.0, 0.4)]).last
    # what moves is worth 0.002, less 0.0002 for the same tokens, less 0.0001 of audits
    assert done is not None
    assert (done.before, done.after, done.cost.usd) == (0.0, 0.4, Decimal("0.6"))
    assert done.usd_per_month == Decimal("0.4") * 100 * Decimal("0.0017") * 30
    assert done.payback_days == pytest.approx(0.6 / (0.4 * 100 * 0.0017))
    rejected = reckoned([line(0.0, 0.4, None)]).last
    assert rejected is not None and (rejected.usd_per_month, rejected.payback_days) == (0, None)


def test_the_next_round_and_both_break_evens_by_hand() -> None:
    found = reckoned([line(0.0, 0.4)], gain=0.05, rounds_per_month=1.0, serving_usd_per_hour=Decimal("0.01"))
    assert found.next is not None
    assert found.next.usd_per_day[0] == Decimal("0.05") * 100 * Decimal("0.0017")
    assert not found.next.pays  # 0.0085 a day against 0.60 within 30 days
    assert found.saved_next == found.saved + 30 * Decimal("0.0085")
    assert found.serving == Decimal("7.2")
    assert found.student_pays_from == pytest.approx((7.2 + 0.6) / 30 / 0.00068)
    assert found.round_pays_from == pytest.approx(0.6 / 30 / (0.05 * 0.0017))
    assert reckoned([line(0.0, 0.4)], gain=0.05, requests_per_day=240.0).next.pays is True  # type: ignore[union-attr]


def test_audits_of_the_last_round_and_data_beside_the_rounds_are_told() -> None:
    first, last = line(0.0, 0.4) | {"at": 86_400.0}, line(0.4, 0.5) | {"at": 6 * 86_400.0}
    done = reckoned([first, last]).last
    assert done is not None and done.audits == Decimal("0.04") / 2  # five of the ten days
    found = reckoned([last], data_usd=Decimal("0.5"))
    assert found.data == Decimal("1.5")
    assert found.fixed == found.rounds + Decimal("1.5")


def test_where_the_log_is_short_a_round_a_month_is_assumed_and_said() -> None:
    found = reckoned([line(0.0, 0.4)], days=2.0)
    assert (found.rounds_per_month, found.rounds_assumed) == (1.0, True)
    assert reckoned([], days=10.0).rounds_per_month == 0.0


def test_without_a_round_its_hours_can_be_given() -> None:
    assert reckoned([]).next is None
    found = reckoned([], hours=2.0)
    assert found.next is not None and found.next.cost == Decimal("1.2")
    assert found.gain.mean == pytest.approx(0.2 * 0.6) and found.gain.rounds == 0


def test_the_curve_crosses_where_the_student_pays() -> None:
    found = reckoned([line(0.0, 0.4)], rounds_per_month=1.0, serving_usd_per_hour=Decimal("0.01"))
    assert found.student_pays_from is not None
    for volume, alone, now, after in found.curve():
        assert (now < alone) is (volume > found.student_pays_from)
        assert after <= now


class Home:
    """A policy, a log of the last two days, a round, and the command line."""

    def __init__(self, folder: Path, *lines: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / "policy.yaml"
        self.file.write_text(yaml.safe_dump(json.loads(Policy.model_dump_json(policy()))))
        now = time.time()
        audit = Audit(answer=answer(Tier.TEACHER, AnswerKind.AUDITED, "0.003"), acceptable=True)
        made = [record(n, Tier.STUDENT, at=now - n * 3600, audit=audit if n == 0 else None) for n in range(1, 25)]
        made += [record(100 + n, Tier.TEACHER, at=now - n * 3600) for n in range(1, 49)]
        self.settings: Settings = logged(folder / "home", made, *lines)

    def __call__(self, *more: str) -> Result:
        env = {"LOCUM_HOME": str(self.settings.home), "COLUMNS": "160"}
        return CliRunner().invoke(app, ["economics", "-p", str(self.file), *more], env=env)


def test_the_command_tells_and_writes_table_json_page_and_plot(tmp_path: Path) -> None:
    home = Home(tmp_path, line(0.0, 0.4))
    ran = home("--out", str(tmp_path / "out"))
    assert ran.exit_code == 0, ran.output
    for words in ("student share", "33.3%", "0.0% -> 40.0%", "the student pays from", "within 30 days"):
        assert words in ran.output
    told = json.loads((tmp_path / "out" / "economics.json").read_text())
    assert told["traffic"]["requests"] == 72
    assert Decimal(told["last_round"]["cost"]["usd"]) == 1
    assert told["next_round"]["worth_it"] is False
    page = (tmp_path / "out" / "economics.html").read_text()
    assert "data:image/png;base64," in page and "http" not in page.split("<main>")[1]
    assert (tmp_path / "out" / "economics.png").read_bytes().startswith(b"\x89PNG")


def test_prices_are_inputs(tmp_path: Path) -> None:
    home = Home(tmp_path, line(0.0, 0.4))

    def told(*more: str) -> dict[str, Any]:
        assert home("--out", str(tmp_path / "out"), *more).exit_code == 0
        found: dict[str, Any] = json.loads((tmp_path / "out" / "economics.json").read_text())
        return found

    usual, same = told(), told("--teacher-usd-per-million", "1,4", "--student-usd-per-million", "0.1,0.1")
    assert same["month"] == usual["month"]
    dear = told("--teacher-usd-per-million", "10,40")
    assert Decimal(dear["month"]["teacher_alone_usd"]) == 10 * Decimal(usual["month"]["teacher_alone_usd"])
    lossy = told("--teacher-usd-per-million", "0.05,0.05")
    assert Decimal(lossy["month"]["saved_usd"]) < 0
    assert lossy["break_even_requests_per_day"]["student"] is None
    free = told("--usd-per-hour", "0")
    assert free["next_round"]["payback_days"] == 0.0


def test_data_that_no_round_paid_for_counts(tmp_path: Path) -> None:
    spent = {"kind": SYNTHETIC, "at": time.time(), "run": "r-1", "cost_usd": "0.7"}
    alone = Home(tmp_path / "alone", line(0.0, 0.4), spent)
    held = Home(tmp_path / "held", {**line(0.0, 0.4), "synthetic_run": "r-1"}, spent)
    assert "synthetic data beside the rounds" in alone().output
    assert "synthetic data beside the rounds" not in held().output


def test_without_history_it_says_what_is_assumed(tmp_path: Path) -> None:
    ran = Home(tmp_path)("--hours", "2")
    assert ran.exit_code == 0
    assert "assumed: a fifth of what the student lacks" in ran.output
    assert "a round would cost 2.00 USD" in ran.output


@pytest.mark.parametrize("more", [("--teacher-usd-per-million", "5"), ("--usd-per-hour", "cheap")])
def test_prices_that_are_none_are_refused(tmp_path: Path, more: tuple[str, ...]) -> None:
    with pytest.raises(LocumError, match=r"USD|US dollars"):
        raise Home(tmp_path)(*more).exception or AssertionError


def test_an_empty_log_is_said_to_be_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(LocumError, match="no answered request"):
        raise home("--log-days", "0.01").exception or AssertionError
