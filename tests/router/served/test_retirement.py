"""Models about to be ended: who knows it, who says so, and that asking costs nobody a start or a key."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from router.app import create_app
from router.backends.openai import OpenAIWire
from router.policy.policy import Policy, load_policy
from router.price_map import retires
from router.served.retirement import WARNED_DAYS, Retirements, shutdown_dates, warned
from router.settings import Settings
from tests.fakes import FakeUpstream, policy_of, served, until

POLICIES = Path(__file__).parents[3] / "policies"
KEY = {"TEACHER_KEY": "sk-teacher-secret"}
TODAY = datetime.now(UTC).date()
PRICE = {"input": 1, "output": 2}


class Lister:
    """A model server that lists its models as a test wants, and keeps who asked for that and how."""

    def __init__(self, status: int = 200, body: Any = b"", headers: Mapping[str, str] | None = None) -> None:
        self.status, self.headers, self.url = status, headers or {}, ""
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.hangs = False
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.asked.append((f"{scope['method']} {scope['path']}", headers))
        if self.hangs:
            await asyncio.Event().wait()
        raw = [(k.encode(), v.encode()) for k, v in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": self.body})


def listing(**ends: object) -> dict[str, Any]:
    models = [{"id": model, "object": "model", "shutdown_date": end} for model, end in ends.items()]
    return {"object": "list", "data": models}


def of(lister: Lister, **changes: Any) -> dict[str, Any]:
    """A policy whose teacher, ``big``, is at the lister."""
    teacher = FakeUpstream("big")
    teacher.url = lister.url
    return policy_of(FakeUpstream("tiny"), teacher, **changes)


@contextmanager
def proxy(folder: Path, values: Mapping[str, Any], env: Mapping[str, str] = KEY) -> Any:
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(dict(values)))
    app = create_app([file], Settings(home=folder / "home", cache=folder / "cache"), env=env, encoders=lambda _: None)
    with served(app, lifespan="on") as url:
        yield url


def problems(url: str) -> list[str]:
    found: list[str] = httpx.get(f"{url}/health/ready").json()["policies"][0]["problems"]
    return found


def check(*files: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "router.cli", "policy", "check", *map(str, files)]
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env={**clean, **env})


@pytest.mark.parametrize("file", sorted(POLICIES.glob("*.yaml")), ids=lambda f: f.name)
def test_what_we_ship_names_no_model_that_is_known_to_end(file: Path) -> None:
    policy = load_policy(file)
    assert policy.embeddings is not None
    named = [policy.teacher.model, *policy.teacher.fallbacks, policy.embeddings.model, *policy.aliases]
    assert {model: retires(model) for model in named if retires(model)} == {}


@pytest.mark.parametrize(
    ("model", "end"),
    [
        ("openai/gpt-5-2025-08-07", "2026-12-11"),
        ("openai/gpt-5", "2026-12-11"),  # its only snapshot's
        ("gpt-4o", "2027-01-14"),  # the last of three
        ("openai/ft:gpt-4o-2024-08-06:acme::x1", "2027-01-14"),
        ("openai/gpt-5.1-2025-11-13", "2027-04-01"),  # the map knows it for gpt-5.1 alone
        ("my-own-cloud/gpt-5", None),
        ("openai/text-embedding-3-small", None),
        ("no-such-model", None),
    ],
)
def test_the_price_map_knows_when_a_model_ends(model: str, end: str | None) -> None:
    assert retires(model) == (date.fromisoformat(end) if end else None)


def test_a_warning_comes_two_months_before_and_stays_once_the_model_is_gone() -> None:
    values = of(Lister(), teacher={"model": "openai/gpt-5"})
    policy, known, end = Policy.model_validate(values), Retirements({}), date(2026, 12, 11)

    def said(days: int) -> list[str]:
        return known.warnings(policy, end - timedelta(days=days))

    assert said(WARNED_DAYS + 1) == []
    assert said(WARNED_DAYS) == [
        "the teacher openai/gpt-5 ends on 2026-12-11, in 60 days: name another one in the policy before"
    ]
    assert "in one day" in said(1)[0]
    assert said(0) == said(-500)
    assert said(0)[0].startswith("the teacher openai/gpt-5 is gone: its provider ended it on 2026-12-11")


def test_each_model_that_a_policy_pays_for_is_looked_at() -> None:
    values = of(
        Lister(),
        teacher={"model": "openai/gpt-6.1-sol", "fallbacks": ["openai/o3"]},
        embeddings={"model": "gpt-4o", "url": "http://127.0.0.1:9/v1", "usd_per_million": 1},
        judge={"name": "llm", "model": "openai/gpt-5-mini"},
    )
    found = Retirements({}).warnings(Policy.model_validate(values), date(2026, 12, 1))
    assert [w.split(" ends")[0] for w in found] == ["the fallback openai/o3", "the judge openai/gpt-5-mini"]


def test_a_server_of_ones_own_is_not_held_to_another_s_dates() -> None:
    values = of(Lister(), teacher={"model": "gpt-5", "url": "http://127.0.0.1:9/v1", "usd_per_million": PRICE})
    assert Retirements({}).warnings(Policy.model_validate(values), date(2027, 12, 1)) == []


def test_readiness_warns_of_what_the_provider_lists_and_stays_ready(tmp_path: Path) -> None:
    end = TODAY + timedelta(days=20)
    lister = Lister(body=listing(small=None, big=end.isoformat()))
    with served(lister) as lister.url, proxy(tmp_path, of(lister)) as url:
        found = until(lambda: problems(url))
        assert found == [f"the teacher big ends on {end}, in 20 days: name another one in the policy before"]
        assert httpx.get(f"{url}/health/ready").status_code == 200
    assert [(path, headers["authorization"]) for path, headers in lister.asked] == [
        ("GET /v1/models", f"Bearer {KEY['TEACHER_KEY']}")
    ]


def test_a_provider_s_later_date_holds_where_the_map_has_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lister = Lister(body=listing(**{"gpt-5": (TODAY + timedelta(days=300)).isoformat()}))
    with served(lister) as lister.url:
        monkeypatch.setattr("router.backends.roster.OPENAI_URL", f"{lister.url}/v1")
        monkeypatch.setattr("router.served.retirement.OPENAI_URL", f"{lister.url}/v1")
        policy = Policy.model_validate(of(lister, teacher={"model": "openai/gpt-5"}))

        async def warnings() -> list[str]:
            wire, known = OpenAIWire(connections=1), Retirements({"OPENAI_API_KEY": "sk"})
            before = known.warnings(policy, date(2026, 12, 1))
            await known.ask([policy], wire)
            await known.ask([policy], wire)
            await wire.close()
            assert before
            return known.warnings(policy, date(2026, 12, 1))

        assert asyncio.run(warnings()) == []
        assert len(lister.asked) == 1, "once a day"


def test_a_provider_that_never_answers_holds_up_nothing(tmp_path: Path) -> None:
    lister = Lister()
    lister.hangs = True
    with served(lister) as lister.url, proxy(tmp_path, of(lister)) as url:
        until(lambda: lister.asked)
        assert problems(url) == []


def test_without_a_key_nobody_is_asked(tmp_path: Path) -> None:
    lister = Lister(body=listing(big="2020-01-01"))
    with served(lister) as lister.url, proxy(tmp_path, of(lister), env={}) as url:
        (told,) = problems(url)
        assert told.startswith("big cannot be asked: the environment has no TEACHER_KEY")
        checked = check(tmp_path / "policy.yaml", env={})
        assert (checked.returncode, lister.asked) == (0, [])


def test_the_key_goes_nowhere_that_a_provider_sends_it(tmp_path: Path) -> None:
    other = Lister(body=listing(big="2020-01-01"))
    with served(other) as other.url:
        lister = Lister(status=302, headers={"location": f"{other.url}/v1/models"})
        with served(lister) as lister.url, proxy(tmp_path, of(lister)) as url:
            until(lambda: lister.asked)
            checked = check(tmp_path / "policy.yaml", env=KEY)
            assert problems(url) == []
    assert other.asked == []
    assert checked.returncode == 0
    assert KEY["TEACHER_KEY"] not in checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b'{"data": null}',
        b'{"data": {"id": "big"}}',
        b'{"data": [null, 1, "big", {"id": ["big"]}, {"id": "big", "shutdown_date": 20200101}]}',
        b'{"data": [{"id": "big", "shutdown_date": "soon"}]}',
        b'{"data": [{"id": "big", "shutdown_date": "0000-99-99"}]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_list_of_models_says_nothing(body: bytes) -> None:
    assert shutdown_dates(body) == {}


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/v1", "no url", "ftp://127.0.0.1/v1"])
def test_a_place_where_nobody_can_be_asked_is_no_matter_here(url: str) -> None:
    teacher = {"model": "big", "url": url, "api_key_env": "TEACHER_KEY", "usd_per_million": PRICE}
    policy = Policy.model_validate(of(Lister(), teacher=teacher))
    assert asyncio.run(warned([policy], {"TEACHER_KEY": "sk-\nsecret"})) == [[]]


def test_the_check_warns_of_both_and_fails_of_neither(tmp_path: Path) -> None:
    lister = Lister(body=listing(big="2020-01-01"))
    with served(lister) as lister.url:
        listed, known = tmp_path / "listed.yaml", tmp_path / "known.yaml"
        listed.write_text(yaml.safe_dump(of(lister)))
        known.write_text(yaml.safe_dump(of(lister, teacher={"model": "openai/gpt-4-turbo"})))
        checked = check(listed, known, env=KEY)
    assert checked.returncode == 0, checked.stderr
    lines = checked.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(listed)] * 3 + [str(known)] * 3
    gone = [line for line in lines if " is gone: " in line]
    assert "the teacher big is gone: its provider ended it on 2020-01-01" in gone[0]
    assert "the teacher openai/gpt-4-turbo is gone: its provider ended it on 2026-10-23" in gone[1]
