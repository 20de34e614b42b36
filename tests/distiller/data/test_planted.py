"""Secrets and personal data, planted wherever a request or an answer has text: none reaches a file or a screen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from distiller.cli import app
from distiller.config import DatasetConfig
from distiller.data.dataset import Dataset, build, scan
from distiller.data.export import FORMS, write
from distiller.data.rows import alias
from router.contracts.records import Record
from router.policy.policy import Policy
from router.store.redaction import KINDS
from tests.distiller.tiny_student import policy, record

PLANTED = {
    "openai": "sk-proj-Ab12Cd34Ef56Gh78Ij90Kl12",
    "anthropic": "sk-ant-api03-Zz12Cd34Ef56Gh78Ij90Kl12",
    "google": "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "slack": "xoxb-123456789012-1234567890123-AbCdEfGhIjKl",
    "stripe": "sk_live_51Ab12Cd34Ef56Gh78",
    "xai": "xai-Ab12Cd34Ef56Gh78Ij90Kl12Mn34",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7q\n-----END RSA PRIVATE KEY-----",
    "email": "ada.lovelace+news@mail.example.co.uk",
    "phone": "+49 (0)171 234-5678",
    "us phone": "(415) 555-2671",
    "mobile": "01712345678",
    "iban": "DE89 3704 0044 0532 0130 00",
    "card": "4111 1111 1111 1111",
    "amex": "378282246310005",
    "ipv4": "192.168.13.37",
    "ipv6": "2001:db8:85a3::8a2e:370:7334",
}
PASSWORD = "Tr0ub4dor&3x"
"""Only what stands before it tells that it is one."""
NEEDLES = [piece for secret in [*PLANTED.values(), PASSWORD] for piece in secret.split("\n") if "---" not in piece]


def redacting() -> Policy:
    return policy().model_copy(update={"log": policy().log.model_copy(update={"redact": tuple(sorted(KINDS))})})


def planted() -> Iterator[Record]:
    """Each in a record of its own, and all of them in one; as users', in tags and options too."""
    for i in range(8):  # whose texts hold nothing
        plain = record(100 + i, f"Question {i}.", f"Answer {i}.", user=PLANTED["email"], conversation=f"p{i}")
        yield replace(plain, task=PLANTED["email"])
    texts = [f"number {i}: my password is {PASSWORD}, and {s}" for i, s in enumerate(PLANTED.values())]
    for i, text in enumerate([*texts, "\n".join(texts)]):
        base = record(i, "", f"You said {text}. Right?", user=PLANTED["email"], conversation=f"{PLANTED['phone']} {i}")
        parts = [{"type": "text", "text": f"Question {i}."}, {"type": "text", "text": text}]
        messages = [
            {"role": "system", "content": f"You serve customer {i}. {text}"},
            {"role": "user", "content": f"Before: {text}"},
            {"role": "assistant", "content": f"I see {text}"},
            {"role": "user", "content": parts, "name": "ada"},
        ]
        schema = {"type": "object", "description": text}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        request = {**(base.request or {}), "messages": messages, "stop": [PLANTED["openai"]], "response_format": form}
        answer = replace(base.answers[0], message={"role": "assistant", "content": '{"said": "' + repr(text) + '"}'})
        yield replace(base, request=request | {"response_format": None}, answers=[answer], task=PLANTED["email"])
        yield replace(base, request_id=f"form-{i}", request=request, conversation_id=f"x{i}", task="form")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    config = DatasetConfig(user_cap=1.0, near_duplicate=1.0, dev_share=0.2)
    return build(planted(), redacting(), tmp_path_factory.mktemp("data"), config)


def clean(text: str) -> None:
    assert [needle for needle in NEEDLES if needle in text] == []


def test_nothing_planted_reaches_a_file_of_the_dataset(dataset: Dataset) -> None:
    assert sum(dataset.counts.values()) == 8
    assert dataset.skipped == {"changed_by_redaction": 2 * (len(PLANTED) + 1)}
    for split in (dataset.train, dataset.dev, dataset.holdout):
        for column in parquet.read_table(split).columns:
            clean(repr(column.to_pylist()))
        clean(split.read_bytes().decode("latin-1"))
    clean((dataset.folder / "dataset.json").read_text())
    said = " ".join(m["content"] for row in scan(dataset.train) for m in row.conversation)
    assert "Question 2." in said
    assert sorted(p.suffix for p in dataset.folder.iterdir()) == [".json", ".parquet", ".parquet", ".parquet"]


@pytest.mark.parametrize("form", list(FORMS))
def test_nothing_planted_is_exported(dataset: Dataset, form: str, tmp_path: Path) -> None:
    assert write(dataset, "train", form, tmp_path / "out.jsonl") > 0
    clean((tmp_path / "out.jsonl").read_text())


def test_nothing_planted_is_shown(dataset: Dataset) -> None:
    shown = CliRunner().invoke(app, ["dataset", "show", str(dataset.folder), "--rows", "100"], env={"COLUMNS": "400"})
    assert shown.exit_code == 0 and "[EMAIL]" in shown.output
    clean(shown.output)


def test_users_and_conversations_are_told_apart_and_not_named(dataset: Dataset) -> None:
    rows = list(scan(dataset.train))
    assert {row.user for row in rows} == {alias(PLANTED["email"])}
    assert len({row.conversation_id for row in rows}) == len(rows)
    assert {row.task for row in rows} <= {"[EMAIL]", "form"}
