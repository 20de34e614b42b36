"""`locum tune` picks what the log can show, and changes nothing else of the policy file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distiller.replay.policy_file import with_threshold, write
from distiller.replay.target import TunedThreshold, TuningTarget, tuned
from router.contracts.decision import Reason, Tier
from router.errors import LocumError, PolicyError, StoreError
from router.policy.policy import load_policy
from tests.distiller.replay.known_log import Recorded, commands, policy, read

REASON = ["locum tune, 2026-01-31: because", "expected: much"]
HEAD = "name: p\nstudent: {model: s, engine: embedded, usd_per_million: {input: 0.02, output: 0.06}}\n"
HEAD += "teacher: {model: openai/gpt-5}\n"


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "p.yaml"
    path.write_bytes(text.encode())
    return with_threshold(path, 0.8125, REASON)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "objective:      # one of\n  parity: {at_least: 0.95}   # floor\n  # student_share: 0.8\nrules: []",
            "objective:      # one of\n  @  threshold: 0.8125   # floor\n  # student_share: 0.8\nrules: []",
        ),
        (
            "objective:\n    parity:\n        at_least: 0.95  # why\n        confidence: 0.9\n    # after\nrules: []\n",
            "objective:\n    @    threshold: 0.8125\n    # after\nrules: []\n",
        ),
        ("# mine\nobjective: {student_share: 0.8} # x\n", "# mine\n@objective: {threshold: 0.8125} # x\n"),
        (
            "objective:\r\n  usd_per_day: 25\r\naliases: [ä]\r\n",
            "objective:\r\n  @  threshold: 0.8125\r\naliases: [ä]\r\n",
        ),
    ],
)
def test_only_the_objective_changes(tmp_path: Path, before: str, after: str) -> None:
    """``@`` stands for the reason."""
    indent, newline = " " * (len(after.partition("@")[0]) - len(after.partition("@")[0].rstrip(" "))), "\n"
    if "\r\n" in before:
        newline = "\r\n"
    reason = f"# {REASON[0]}{newline}{indent}# {REASON[1]}{newline}"
    assert written(tmp_path, HEAD + before) == HEAD + after.replace("@", reason)


def test_tuning_again_replaces_the_reason_and_no_comment_of_the_users(tmp_path: Path) -> None:
    once = written(tmp_path, HEAD + "objective:\n  # keep me\n  threshold: 0.5\n")
    (tmp_path / "p.yaml").write_text(once)
    twice = with_threshold(tmp_path / "p.yaml", 0.7, REASON)
    assert twice == once.replace("0.8125", "0.7") and twice.count("locum tune") == 1 and "# keep me" in twice


def test_a_file_that_cannot_be_edited_in_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("limits: &a {}\n" + HEAD + "objective: *a\n")
    with pytest.raises(PolicyError, match="objective must be a mapping of one key"):
        with_threshold(path, 0.5, REASON)
    path.write_text("accept: &a {threshold: 0.5}\n" + HEAD + "objective: *a\n")
    with pytest.raises(PolicyError, match="an alias"):
        with_threshold(path, 0.5, REASON)


def test_writing_keeps_the_files_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("a")
    path.chmod(0o640)
    write(path, "b")
    assert path.read_text() == "b" and path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text", ["parity=1", "parity=0", "share=1.2", "usd_per_day=-1", "parity", "speed=3", "share=x"]
)
def test_a_target_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(LocumError, match="say parity="):
        TuningTarget.parse(text)


ROUTING = policy(accept={"cascade": False})


def tune_to(target: str, recorded: Recorded, **more: Any) -> TunedThreshold:
    return tuned(read(recorded.records(), ROUTING), ROUTING, TuningTarget.parse(target, **more), today="2026-01-31")


def test_a_certified_parity_holds_in_truth_and_says_on_what_it_rests() -> None:
    broken = 0
    for seed in range(20):
        recorded = Recorded(1500, seed=seed)
        found = tune_to("parity=0.85", recorded, confidence=0.8)
        broken += recorded.given(found.threshold)["parity"] < 0.85
        if seed == 0:
            assert "parity of at least 0.85 at 0.8 confidence, over any 1000 requests" in found.reason[0]
            assert "audits of bundle b-1" in found.reason[0] and "expected: student share" in found.reason[1]
    assert broken <= 7  # 4 are allowed on average


def test_a_share_is_what_the_student_then_serves() -> None:
    recorded = Recorded()
    for share in (0.2, 0.8):
        found = tune_to(f"share={share}", recorded)
        assert (recorded.score >= found.threshold).mean() == pytest.approx(share, abs=0.002)


def test_a_budget_is_kept_and_used() -> None:
    recorded = Recorded()
    traffic = read(recorded.records(), ROUTING)
    day = float(np.mean([float(recorded.answer(i, Tier.TEACHER).cost_usd) for i in range(200)])) * 1440
    found = tuned(traffic, ROUTING, TuningTarget.parse(f"usd_per_day={day / 2}"))
    cost = found.figures["cost"].estimate
    assert cost is not None and 0.45 * day < cost * traffic.requests_per_day <= 0.5 * day


def test_what_the_log_cannot_show_is_refused_with_what_is_missing() -> None:
    few, bad = Recorded(50), Recorded(1500)
    with pytest.raises(StoreError, match=r"takes \d+ audits with a verdict even if none fails, and bundle b-1 has"):
        tune_to("parity=0.95", few)
    bad.good[:] = False
    bad.score[:] = 0.7  # so that none of its failures can be told from another
    with pytest.raises(StoreError, match="at any threshold: the student failed"):
        tune_to("parity=0.95", bad)
    with pytest.raises(StoreError, match="even with every request at the student"):
        tune_to("usd_per_day=0.0001", Recorded(300))
    capable = Recorded(300)
    unfit = [capable.record(i, reason=Reason.CAPABILITY) for i in range(300)]
    with pytest.raises(StoreError, match="settled for the teacher before any score"):
        tuned(read(unfit, ROUTING), ROUTING, TuningTarget.parse("share=0.5"))
    with pytest.raises(StoreError, match="scorer of bundle b-1 is not in this home"):
        tuned(read(few.records(), policy()), policy(), TuningTarget.parse("share=0.5"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    return commands(tmp_path, monkeypatch)


def test_tune_writes_the_file_unless_it_is_dry(run: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "default.yaml"
    before = file.read_text()
    said = run("tune", "--target", "share=0.6", "--dry-run")
    assert said.exit_code == 0 and "stays as it is" in said.output and file.read_text() == before
    said = run("tune", "--target", "share=0.6")
    assert said.exit_code == 0, said.output
    threshold = load_policy(file).objective.threshold
    assert threshold is not None and 0.4 < threshold < 0.8
    assert "# locum tune, " in file.read_text() and file.read_text().endswith("accept: {cascade: false}   # mine\n")


@pytest.mark.parametrize("target", ["usd_per_day=1000000", "share=0"])
def test_a_threshold_that_serves_nobody_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    run = commands(tmp_path, monkeypatch)
    before = (tmp_path / "default.yaml").read_bytes()
    result = run("tune", "--target", target)
    assert result.exit_code != 0 and "serves nobody" in str(result.exception)
    assert (tmp_path / "default.yaml").read_bytes() == before


def test_forced_requests_move_no_threshold() -> None:
    """Ten times as many as the traffic, all to the student, would have made any share a threshold above 1."""
    recorded, chosen, wanted = Recorded(400), policy(accept={"cascade": False}), TuningTarget.parse("share=0.5")
    decision = replace(recorded.record(0).decision, tier=Tier.STUDENT, reason=Reason.OVERRIDE)
    forced = [recorded.record(i % 400, decision=decision, reason=Reason.OVERRIDE) for i in range(4000)]
    plain = tuned(read(recorded.records(), chosen), chosen, wanted)
    mixed = tuned(read([*recorded.records(), *forced], chosen), chosen, wanted)
    assert mixed.threshold == plain.threshold < 1
