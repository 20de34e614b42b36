from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distiller.logs.calls import SkipReason
from distiller.progress import SilentProgress
from distiller.scan.outlook import FLOORS, share_ahead
from distiller.scan.page import page
from distiller.scan.report import Scan, policy_text, scan_of
from distiller.scan.rows import sample_of
from distiller.scan.tables import report
from router.contracts.records import Rights
from router.errors import DatasetError
from router.policy.policy import load_policy
from router.reports.terminal import Terminal
from tests.distiller.logs.lines import LANGFUSE, LITELLM, OTLP

THINGS = {"card": "card_arrival", "transfer": "transfer_fee", "cash": "cash_withdrawal", "rate": "exchange_rate"}
INTENTS = "You route messages of a bank. Answer with the name of the intent alone."
STORIES = "You write a story about what you are told."


def call(system: str, asked: str, said: Any, number: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
    answer = {"role": "assistant", "content": said if isinstance(said, str) else json.dumps(said)}
    return {
        "id": f"c-{number}", "created": 1_760_000_000 + 60 * number, "model": "gpt-5", "messages": [*messages],
        "choices": [{"message": answer, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 4}, **more,
    }  # fmt: skip


def traffic(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Three kinds: intents that one word tells, the same as JSON, and stories."""
    draw = random.Random(seed)
    words = [f"word{i}" for i in range(60)]
    for number in range(count):
        thing, label = draw.choice(list(THINGS.items()))
        asked = " ".join([*draw.choices(words, k=5), thing, *draw.choices(words, k=3)])
        kind = draw.random()
        if kind < 0.5:
            yield call(INTENTS, asked, label, number)
        elif kind < 0.75:
            yield call("Extract the fields.", asked, {"intent": label, "urgent": "word1" in asked}, number)
        else:
            yield call(STORIES, asked, f"Once upon a time {asked} and {number}", number)


def scanned(path: Path, lines: Iterator[Any] | list[Any]) -> Scan:
    path.write_bytes(b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines))
    return scan_of(sample_of([path], None, SilentProgress()), [str(path)], None)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Scan:
    return scanned(tmp_path_factory.mktemp("log") / "log.jsonl", traffic(1500))


def test_kinds_are_told_apart_and_named_by_what_their_requests_share(found: Scan) -> None:
    names = {one.kind.name: len(one.kind.rows) for one in found.outlook.kinds}
    assert len(names) == 3
    assert sum(names.values()) == 1500
    assert any("route messages of a bank" in name for name in names)
    assert any("Extract the fields" in name for name in names)


def test_closed_answers_have_a_head_and_open_ones_say_why_not(found: Scan) -> None:
    intents, fields, stories = (
        next(one for one in found.outlook.kinds if words in one.kind.name) for words in ("route", "Extract", "story")
    )
    assert (intents.answers.distinct, intents.why, fields.why) == (4, "", "")
    assert intents.head is not None and fields.head is not None
    assert [layer.name for layer in fields.head.layers] == ["intent", "urgent"]
    assert (stories.head, stories.why, stories.answers.unseen) == (None, "open answers", 1.0)


def test_what_heads_carry_grows_as_the_floor_falls_and_has_its_limits(found: Scan) -> None:
    shares = [carried.share.estimate for carried in found.outlook.carried]
    assert [carried.floor for carried in found.outlook.carried] == list(FLOORS)
    assert shares == sorted(shares, key=lambda share: -(share or 0))
    assert 0.5 < (shares[1] or 0) < 0.8
    for carried in found.outlook.carried:
        assert carried.share.low <= (carried.share.estimate or 0) <= carried.share.high
        assert carried.wrong <= (1 - carried.floor) * carried.looked_at
    assert found.outlook.learnt + found.outlook.looked_at == 1500


def test_money_is_of_the_log_s_own_volume_and_models(found: Scan) -> None:
    assert found.days is not None and found.month_usd is not None
    assert abs(found.days - 1499 / 1440) < 1e-6
    assert float(found.month_usd) == pytest.approx(float(found.sums.usd) * 30 / found.days)
    saved = found.saved_usd(found.outlook.carried[1])
    assert saved is not None and saved.estimate is not None
    assert 0 < saved.low <= saved.estimate <= saved.high < float(found.month_usd)
    assert found.trainable == {Rights.FORBIDDEN: 1500}


def test_the_policy_that_is_proposed_is_one(found: Scan, tmp_path: Path) -> None:
    path = tmp_path / "scanned.yaml"
    path.write_text(policy_text(found))
    policy = load_policy(path)
    assert (policy.teacher.model, policy.teacher.training_rights) == ("openai/gpt-5", Rights.FORBIDDEN)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_holds_what_the_log_says_as_text(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script> \u202e\x1b[31m & the "intent" of what is asked, as a label alone'
    found = scanned(tmp_path / "log", [call(evil, f"card {n}", "yes" if n % 2 else "no", n) for n in range(120)])
    parsed, text = Page(), page(found)
    parsed.feed(text)
    assert parsed.open == [] == parsed.links
    assert "<script" not in text and "\u202e" not in text and "\x1b" not in text
    assert text.count("<svg") == 2


def test_the_report_fits_a_terminal(found: Scan) -> None:
    console = Terminal(width=100)
    with console.capture() as capture:
        console.print(report(found))
    said = capture.get()
    for words in (
        "Kinds of requests",
        "What heads would have carried",
        "Money",
        "What may be trained on",
        "locum import",
    ):
        assert words in said
    assert re.search(r"0\.95 at 95% +\d\d\.\d% \(\d\d\.\d% to \d\d\.\d%\)", said)


def test_formats_mix_and_what_is_not_used_is_counted(tmp_path: Path) -> None:
    lines = [*traffic(40), LITELLM, LANGFUSE, OTLP, b"{broken", {"messages": []}, *traffic(5)]
    sums = scanned(tmp_path / "log", lines).sums
    assert sums.lines == 50
    assert {source.value for source in sums.sources} == {"openai", "litellm", "langfuse", "otel"}
    assert sums.skipped[SkipReason.DUPLICATE] == 5
    assert sums.skipped[SkipReason.BROKEN] == sums.skipped[SkipReason.NO_CALL] == 1


def test_a_log_without_times_or_prices_or_closed_answers_says_so(tmp_path: Path) -> None:
    bare = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
        for n in range(90)
    ]
    found = scanned(tmp_path / "log", bare)
    assert (found.days, found.month_usd, found.requests_per_day) == (None, None, None)
    assert all(carried.share.estimate == 0 for carried in found.outlook.carried)
    console = Terminal(width=120)
    with console.capture() as capture:
        console.print(report(found))
    assert "no price is known" in capture.get()
    assert page(found)


def test_one_call_is_enough_and_none_is_told_in_words(tmp_path: Path) -> None:
    assert scanned(tmp_path / "log", [call(INTENTS, "card", "yes", 1)]).sums.calls == 1
    for content in (b"", b"\n", b"{broken\n"):
        path = tmp_path / "none"
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="no call of a model"):
            sample_of([path], None, SilentProgress())


def test_a_long_log_is_sampled_and_its_sums_are_of_all(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(json.dumps(one) + "\n" for one in traffic(600)))
    sample = sample_of([path], None, SilentProgress(), most=200)
    places = [row.place for row in sample.rows()]
    assert (sample.sums.calls, len(places)) == (600, 200)
    assert places == sorted(places)
    assert 200 < sum(places) / 200 < 400


def test_an_interval_is_of_the_requests_to_come() -> None:
    near, far = share_ahead(50, 100), share_ahead(5000, 10_000)
    assert near.estimate == far.estimate == 0.5
    assert near.high - near.low > far.high - far.low > 0.05
    assert share_ahead(0, 100).high == 0.0
    assert share_ahead(100, 100).low == 1.0


def test_the_command_writes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from distiller.scan.cli import scan

    monkeypatch.setenv("LOCUM_CACHE", str(tmp_path / "cache"))
    log, html = tmp_path / "log.jsonl", tmp_path / "report.html"
    log.write_text("".join(json.dumps(one) + "\n" for one in traffic(100)))
    app = typer.Typer()
    app.command()(scan)
    done = CliRunner().invoke(app, [str(log), "--html", str(html)])
    assert done.exit_code == 0, done.output
    assert "100 calls" in done.output
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distiller.scan.cli import scan

    monkeypatch.setenv("LOCUM_CACHE", str(tmp_path / "cache"))
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(call(INTENTS, "card", "yes", 1)))
    with pytest.raises(DatasetError, match="cannot write"):
        scan([log], None, tmp_path / "missing" / "report.html")
