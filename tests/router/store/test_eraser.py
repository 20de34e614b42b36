"""What was erased is gone, from the disk too, and who writes beside it never notices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from router.api.responses.store import VERSION, KeptResponses, Terms
from router.contracts.decision import Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record
from router.policy.policy import LogPart
from router.settings import Settings
from router.store.access import open_eraser
from router.store.base import Traces
from router.store.eraser import RESPONSES_VERSION
from router.store.sqlite import SqliteStore

MakeRecord = Callable[..., Record]
SAID = "the quick brown pangolin"


def asked(make_record: MakeRecord, name: str, user: str | None, conversation: str, text: str = SAID) -> Record:
    body = {"messages": [{"role": "user", "content": f"{text} {name}"}]}
    return make_record(name, user=user, conversation_id=conversation, request=body, answers=[])


def audit() -> Audit:
    answer = Answer(tier=Tier.TEACHER, kind=AnswerKind.AUDITED, model="m", message={"content": SAID})
    return Audit(answer=answer, acceptable=True, judge="exact")


def on_disk(home: Path) -> bool:
    return any(SAID.encode() in path.read_bytes() for path in home.glob("*.db*"))


async def test_a_users_records_go_with_all_that_was_added_while_the_proxy_goes_on_writing(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    settings = Settings(home=tmp_path)
    eraser = open_eraser(settings)
    with closing(SqliteStore(settings.records_db, {"default": LogPart(redact=())})) as store:
        for i in range(500):
            store.append(asked(make_record, f"jo-{i}", "jo", f"c{i}"))
            store.append(asked(make_record, f"other-{i}", "al", f"d{i}", "something else"))
        store.amend("jo-1", audit=audit())
        await store.flush()
        assert on_disk(tmp_path)
        found = eraser.find(user="jo")
        assert set(found.request_ids) == {f"jo-{i}" for i in range(500)}
        store.append(asked(make_record, "other-500", "al", "d", "something else"))
        assert eraser.erase(found) == 500
        store.amend("jo-2", audit=audit())  # what comes late finds no record, and no text of it is kept
        store.append(asked(make_record, "other-501", "al", "d", "something else"))
        await store.flush()
        assert (store.errors, store.dropped) == (0, 0)
        assert {r.user for _, r in store.records()} == {"al"}
        assert len(list(store.records())) == 502
        assert store.get("jo-1") is None
        assert not on_disk(tmp_path)
    assert eraser.erase(found) == 0


async def test_a_conversation_is_found_by_its_id_whoever_spoke(tmp_path: Path, make_record: MakeRecord) -> None:
    settings = Settings(home=tmp_path)
    with closing(SqliteStore(settings.records_db, {"default": LogPart()})) as store:
        for name, user, conversation in (("a", "jo", "c1"), ("b", None, "c1"), ("c", "jo", "c2")):
            store.append(asked(make_record, name, user, conversation))
        await store.flush()
    eraser = open_eraser(settings)
    assert eraser.find(conversation="c1") == Traces(("a", "b"), frozenset({"c1"}), frozenset({"c1"}))
    assert eraser.find(conversation="c3").request_ids == ()
    assert eraser.find(user="jo").conversations == {"c2"}, "c1 is somebody else's too"
    assert eraser.find(user="%").request_ids == ()


async def test_responses_that_were_kept_of_a_conversation_go_too(tmp_path: Path, make_record: MakeRecord) -> None:
    settings = Settings(home=tmp_path)
    kept = KeptResponses(tmp_path / "responses.db")
    kept.open()
    for name in ("c1", "c2"):
        response: dict[str, Any] = {"id": f"resp-{name}", "previous_response_id": None, "output": [{"text": SAID}]}
        assert await kept.put(response, [], Terms("me", "default", name, 1000.0))
    open_eraser(settings).erase(Traces((), frozenset({"c1"})))
    assert await kept.get("resp-c1", "me") is None
    assert await kept.get("resp-c2", "me") is not None
    open_eraser(settings).erase(Traces((), frozenset({"c2"})))
    kept.close()
    assert not on_disk(tmp_path)
    assert RESPONSES_VERSION == VERSION


def test_where_nothing_was_recorded_nothing_is_found_or_made(tmp_path: Path) -> None:
    eraser = open_eraser(Settings(home=tmp_path))
    assert eraser.find(user="jo") == Traces(names=frozenset({"jo"}))
    assert eraser.erase(Traces(("a",), frozenset({"c"}))) == 0
    assert list(tmp_path.iterdir()) == []


async def test_whom_redaction_gave_a_pseudonym_is_found_by_name(tmp_path: Path, make_record: MakeRecord) -> None:
    """Beside what an older Locum kept of them as it was said; and their stored responses go, which know the name."""
    settings, who, talk = Settings(home=tmp_path), "ada@example.com", "chat-with-ada@example.com"
    kept = KeptResponses(tmp_path / "responses.db")
    kept.open()
    response: dict[str, Any] = {"id": "resp-1", "previous_response_id": None, "output": [{"text": SAID}]}
    assert await kept.put(response, [], Terms("me", "default", talk, 1000.0))
    for redact, names in ((), ("old",)), (("email",), ("new", "newer")):
        rules = LogPart.model_validate({"redact": redact})
        with closing(SqliteStore(settings.records_db, {"default": rules}, clock=lambda: 1e6)) as store:
            for name in names:
                store.append(asked(make_record, name, who, talk))
            store.append(asked(make_record, f"other-{len(names)}", "bob@example.com", "d"))
            await store.flush()
    eraser = open_eraser(settings)
    found = eraser.find(user=who)
    assert found.request_ids == ("old", "new", "newer")
    assert eraser.find(conversation=talk).request_ids == found.request_ids
    assert eraser.erase(found) == 3
    assert await kept.get("resp-1", "me") is None
    assert len(eraser.find(user="bob@example.com").request_ids) == 2
    kept.close()
