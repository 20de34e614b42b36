"""Policy files: what is right loads, what is wrong says where, and editors know the schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from router.contracts.records import Rights
from router.errors import PolicyError
from router.policy.objective import Objective
from router.policy.policy import Policy, json_schema, load_policy

POLICIES = Path(__file__).parents[3] / "policies"
WHOLE: dict[str, Any] = yaml.safe_load((POLICIES / "default.yaml").read_text())
SCHEMA = POLICIES / "policy.schema.json"


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in (WHOLE | changes).items() if v is not None}))
    return file


def locum(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "router.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("part", ["student", "teacher", "embeddings", "judge"])
@pytest.mark.parametrize("url", ["http://me:hunter2@host/v1", "http://hunter2@host/v1", "http://host/v1?key=hunter2"])
def test_no_url_holds_a_key(tmp_path: Path, part: str, url: str) -> None:
    price = {"input": 1, "output": 1}
    parts: dict[str, dict[str, Any]] = {
        "student": {"model": "m", "url": url, "usd_per_million": price},
        "teacher": {"model": "m", "url": url, "usd_per_million": price},
        "embeddings": {"model": "m", "url": url, "usd_per_million": 1},
        "judge": {"name": "llm", "model": "m", "url": url, "usd_per_million": price},
    }
    with pytest.raises(PolicyError, match="api_key_env") as told:
        load_policy(write(tmp_path, **{part: parts[part]}))
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("file", sorted(POLICIES.glob("*.yaml")), ids=lambda f: f.name)
def test_every_policy_we_ship_loads_and_fits_the_schema(file: Path) -> None:
    assert load_policy(file).name
    jsonschema.validate(yaml.safe_load(file.read_text()), json.loads(SCHEMA.read_text()))


def test_the_committed_schema_is_what_the_command_prints() -> None:
    assert SCHEMA.read_text() == json_schema(), "run: locum policy schema > policies/policy.schema.json"


def test_the_schema_itself_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(json_schema()))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"objectve": {}}, "objectve: Extra inputs"),
        ({"teacher": None}, "teacher: Field required"),
        ({"objective": {}}, "exactly one of parity"),
        ({"objective": {"parity": {}, "student_share": 0.8}}, "exactly one of parity"),
        ({"objective": {"student_share": 0.8, "when_spent": "refuse"}}, "'when_spent' belongs to 'usd_per_day'"),
        ({"objective": {"student_share": 80}}, "objective.student_share: "),
        ({"name": "student"}, "those names force a tier"),
        ({"name": "Not A Name"}, "name: "),
        ({"rules": [{"when": {}, "send": "nowhere"}]}, "rules.0.send: "),
        ({"student": WHOLE["student"] | {"url": "http://x/v1"}}, "exactly one of 'engine' and 'url'"),
        ({"audit": {"rate": 2}}, "audit.rate: "),
        ({"accept": {"cascade": False, "routing": False}}, "nothing would hold a student's answer back"),
        ({"accept": {"cascade": False, "samples": 2}}, "they need 'cascade: true'"),
        ({"accept": {"samples": 5}}, "accept.samples: "),
        ({"accept": {"routing": False}, "objective": {"student_share": 0.8}}, "needs 'accept.routing: true'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(write(tmp_path, **changes))
    assert where in str(caught.value)
    assert "policy.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"", "valid dictionary"),
        (b"- a", "dictionary"),
    ],
)
def test_a_file_that_is_no_policy_is_a_clear_error(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "policy.yaml").write_bytes(content)
    with pytest.raises(PolicyError, match=why):
        load_policy(tmp_path / "policy.yaml")


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        load_policy(tmp_path / "nowhere.yaml")


def test_every_edit_is_a_new_version_and_only_an_edit_is(tmp_path: Path) -> None:
    same = load_policy(write(tmp_path)).version
    assert load_policy(write(tmp_path)).version == same
    assert load_policy(write(tmp_path, audit={"rate": 0.03})).version != same


def test_teacher_answers_are_trained_on_by_its_terms_or_by_the_users_word_by_name() -> None:
    def policy(rights: Rights, *named: str) -> Policy:
        teacher = {"model": "openai/gpt-5", "training_rights": rights, "i_have_the_right_to_train_on": named}
        return Policy.model_validate(WHOLE | {"teacher": teacher})

    assert policy(Rights.ALLOWED).may_train_on_teacher
    assert not policy(Rights.FORBIDDEN).may_train_on_teacher
    assert not policy(Rights.UNKNOWN, "openai/gpt-4o").may_train_on_teacher
    assert policy(Rights.FORBIDDEN, "openai/gpt-5").may_train_on_teacher


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    fine = locum("policy", "check", str(POLICIES / "default.yaml"))
    assert (fine.returncode, "policy 'default'" in fine.stdout) == (0, True)
    wrong = locum("policy", "check", str(write(tmp_path, objective={})))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert wrong.stderr.startswith("locum: ")


@pytest.mark.parametrize(
    ("given", "kind", "target", "views"),
    [
        ({"parity": {"at_least": 0.9}}, "parity", 0.9, ("floor",)),
        ({"student_share": 0.8}, "student_share", 0.8, ("share", "starts_from_prior")),
        ({"usd_per_day": 3, "when_spent": "refuse"}, "usd_per_day", 3.0, ("cap", "starts_from_prior", "refuses")),
        ({"threshold": 0.7}, "threshold", 0.7, ("fixed",)),
    ],
)
def test_an_objective_says_what_it_comes_to(
    given: dict[str, Any], kind: str, target: float, views: tuple[str, ...]
) -> None:
    found = Objective.model_validate(given)
    assert (found.kind, found.target) == (kind, target)
    names = ("floor", "share", "cap", "fixed", "starts_from_prior", "refuses")
    assert tuple(n for n in names if getattr(found, n) not in (None, False)) == tuple(n for n in names if n in views)
