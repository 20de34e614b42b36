"""What of a record a policy lets a disk have: its text redacted, or none of it; as JSON that can be read back."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from typing import Any

import orjson
from pydantic import ValidationError

from router.contracts.logprobs import packed_as_told
from router.contracts.records import Answer, Audit, Record, read_audit, read_record
from router.policy.engines import UNSAYING
from router.policy.policy import LogPart
from router.store.files import may_hold_files, without_files
from router.store.pseudonyms import Pseudonyms
from router.store.redaction import redact, redact_json

UNFIT = (orjson.JSONEncodeError, UnicodeError, RecursionError, ValidationError)
"""What says that something could not be kept: half characters, endless nesting, what is no number."""
READ_DEEPEST, DUMPS_DEEPEST = 190, 254
"""Levels that are surely read back, and that orjson writes."""
_OPEN, _CLOSE = b"[" * (DUMPS_DEEPEST - READ_DEEPEST), b"]" * (DUMPS_DEEPEST - READ_DEEPEST)

OURS = frozenset(
    {
        "bundle", "created_at", "features_version", "owner", "policy", "policy_version", "request_id", "schema_version",
        "student_version", "top_logprobs",
    }
)  # fmt: skip
"""What Locum says itself, in names and numbers of its own. All else is, or may quote, what others said."""
NAMES = ("user", "conversation_id")
"""What tells people and what they talk about apart, in a client's words."""

_RECORD, _ANSWER, _AUDIT = (tuple(f.name for f in fields(kind)) for kind in (Record, Answer, Audit))


def kept_record(
    record: Record,
    rules: LogPart | None,
    unspelled: Callable[[], None] = lambda: None,
    files: dict[str, str] | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> str:
    """The record's JSON, fit to be kept: fields that are None are left out. Without rules (a policy not known
    here) no text is. ``unspelled`` is told of each answer that loses its tokens' probabilities, since they spell
    what was redacted; ``files`` gathers those to be kept beside it, by their marks; ``pseudonyms`` stand for names
    that are redacted, and without them a mark does.

    Raises:
        one of UNFIT: no JSON can hold it, or it could not be read back.
        StoreError: a pseudonym is needed and cannot be made.
    """
    kinds = _kinds(rules, record.task)
    kept = _plain(record, _RECORD)
    kept["request"] = None
    kept["answers"] = [_answer(answer) for answer in record.answers]
    if record.audit is not None:
        kept["audit"] = _audit(record.audit)
    if pseudonyms is not None:
        kept |= {name: pseudonyms.kept(kept[name], kinds) for name in NAMES if kept.get(name)}
    kept = _cleaned(kept, kinds)
    answers = kept["answers"]
    read_record(orjson.dumps(kept, default=_decimal))  # all but the texts, which any JSON object is
    kept["request"] = request = _text(record.request, rules, kinds)
    if request is not None and record.request is not None:
        said = record.request
        if any(request[name] != said[name] for name in said if name not in UNSAYING):
            kept["redacted"] = True
    for answer, whole in zip(answers, record.answers, strict=True):
        _add_text(answer, whole, rules, kinds, unspelled)
    if record.audit is not None and record.audit.answer is not None:
        _add_text(kept["audit"]["answer"], record.audit.answer, rules, kinds)
    return _written(kept, rules, files)


def kept_audit(
    audit: Audit, rules: LogPart | None, files: dict[str, str] | None = None, *, task: str | None = None
) -> str:
    """The same for an audit that comes after its record, which had this ``task`` tag."""
    kinds = _kinds(rules, task)
    kept = _cleaned(_audit(audit), kinds)
    read_audit(orjson.dumps(kept, default=_decimal))
    if audit.answer is not None:
        _add_text(kept["answer"], audit.answer, rules, kinds)
    return _written(kept, rules, files)


def _written(kept: dict[str, Any], rules: LogPart | None, files: dict[str, str] | None) -> str:
    """As JSON, with the files taken out that it may hold."""
    body = _json(kept)
    if rules is None or not may_hold_files(body):
        return body
    return _json(without_files(kept, rules.files, {} if files is None else files))


def _json(kept: dict[str, Any]) -> str:
    """Where it nests no deeper than is read back: the check is that orjson writes it inside so many lists."""
    buried: Any = kept
    for _ in _OPEN:
        buried = [buried]
    return orjson.dumps(buried, default=_decimal)[len(_OPEN) : -len(_CLOSE)].decode()


def _audit(audit: Audit) -> dict[str, Any]:
    kept = _plain(audit, _AUDIT)
    if audit.answer is not None:
        kept["answer"] = _answer(audit.answer)
    return kept


def _answer(answer: Answer) -> dict[str, Any]:
    """All but what was said."""
    kept = _plain(answer, _ANSWER)
    kept.pop("top_logprobs", None)
    kept["message"] = None
    return kept


def _add_text(
    kept: dict[str, Any],
    answer: Answer,
    rules: LogPart | None,
    kinds: Collection[str],
    unspelled: Callable[[], None] = lambda: None,
) -> None:
    kept["message"], told = _text(answer.message, rules, kinds), answer.top_logprobs
    if kept["message"] is not None and kept["message"] != answer.message:
        kept["redacted"] = True
    if told is not None and kept["message"] == answer.message:
        kept["top_logprobs"] = told if isinstance(told, str) else packed_as_told(told, _let_others_run)
    elif told is not None and kept["message"] is not None:
        unspelled()


def _let_others_run() -> None:
    """Lets go of the interpreter's lock: an event loop next door may wait for it."""
    time.sleep(0)


def _plain(of: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(of, name)) is not None}


def _kinds(rules: LogPart | None, task: str | None) -> Collection[str]:
    """What is redacted; of a policy that is not known here, what is where none says."""
    return (rules or LogPart()).kinds(task)


def _cleaned(value: Any, kinds: Collection[str]) -> Any:
    """A copy in which no string says what is redacted, wherever it stands."""
    if isinstance(value, str):
        return redact(value, kinds)
    if isinstance(value, dict):
        return {name: item if name in OURS else _cleaned(item, kinds) for name, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item, kinds) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        said = ((f.name, getattr(value, f.name)) for f in fields(value))
        return replace(value, **{name: redact(text, kinds) for name, text in said if isinstance(text, str)})
    return value


def _text(part: dict[str, Any] | None, rules: LogPart | None, kinds: Collection[str]) -> dict[str, Any] | None:
    if not isinstance(part, dict) or rules is None or not rules.text:
        return None
    redacted: dict[str, Any] = redact_json(part, kinds)
    return redacted


def _decimal(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON holds")
