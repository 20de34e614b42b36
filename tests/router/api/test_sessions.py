"""Where clients name their conversations and users."""

from __future__ import annotations

from typing import Any

import pytest

from router.api.sessions import conversation_named, user_and_session, user_named


@pytest.mark.parametrize(
    ("headers", "body", "name"),
    [
        ({b"x-locum-conversation": b" mine "}, {"metadata": {"conversation_id": "ours"}}, "mine"),
        ({b"x-claude-code-session-id": b"s"}, {"metadata": {"user_id": "user_a_account__session_t"}}, "s"),
        ({b"session-id": b"s", b"thread-id": b"t"}, {}, "t"),
        ({b"session_id": b"s", b"conversation_id": b"s"}, {}, "s"),
        ({b"x-session-affinity": b"s"}, {}, "s"),
        ({b"x-openwebui-chat-id": b"s"}, {}, "s"),
        ({}, {"metadata": {"thread_id": "t", "session_id": "s"}, "session_id": "other"}, "t"),
        ({}, {"session_id": "s"}, "s"),
        ({}, {"litellm_session_id": "s"}, "s"),
        ({}, {"metadata": {"user_id": "user_a_account_b_session_c-d"}}, "c-d"),
        ({}, {"metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'}}, "s"),
        ({}, {"metadata": {"user_id": "someone"}, "prompt_cache_key": "p", "user": "u"}, None),
        ({}, {"metadata": {"conversation_id": 7, "session_id": ""}, "session_id": {}}, None),
        ({b"x-locum-conversation": b" "}, {"metadata": "no"}, None),
    ],
)
def test_the_most_particular_name_counts(headers: dict[bytes, bytes], body: dict[str, Any], name: str | None) -> None:
    assert conversation_named(headers, body) == name


@pytest.mark.parametrize(
    ("user_id", "said"),
    [
        ("user_a_account_b_session_c", ("user_a_account_b", "c")),
        ('{"device_id":"d","account_uuid":"a","session_id":"s"}', ("a/d", "s")),
        ('{"session_id":"s"}', (None, "s")),
        ("user_a_session_", ("user_a_session_", None)),
        ("{no json", ("{no json", None)),
        ("[]", ("[]", None)),
        ("someone", ("someone", None)),
        (7, (None, None)),
    ],
)
def test_claude_codes_user_is_one_in_all_its_sessions(user_id: Any, said: tuple[str | None, str | None]) -> None:
    assert user_and_session(user_id) == said


def test_a_user_has_two_fields() -> None:
    assert user_named({"user": "u", "safety_identifier": "s"}) == "u"
    assert user_named({"user": "", "safety_identifier": "s"}) == "s"
    assert user_named({"user": 7}) is None
