"""A Claude client whose teacher is Claude too: through litellm to Anthropic's wire, which a second proxy speaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from anthropic import Anthropic

from tests.fakes import Script, World, world

CLAUDE = "claude-sonnet-4-5"
THOUGHT = {"type": "thinking", "thinking": "hm, sky", "signature": "sig-1"}
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 60}}
ANSWER = Script(
    text="blue",
    message={"reasoning_content": "hm, sky", "thinking_blocks": [THOUGHT]},
    deltas=(
        {"reasoning_content": "hm, "},
        {"reasoning_content": "sky"},
        {"thinking_blocks": [THOUGHT | {"thinking": ""}]},
        {"content": "blue"},
    ),
    usage=USAGE,
)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """What stands for Anthropic: its teacher thinks, and signs what it thought."""
    with world(tmp_path_factory.mktemp("behind"), aliases=[CLAUDE], objective={"student_share": 0}) as found:
        found.teacher.answer = lambda body: ANSWER
        yield found


@pytest.fixture(scope="module")
def client(behind: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anthropic]:
    teacher = {
        "model": f"anthropic/{CLAUDE}",
        "api_key_env": "TEACHER_KEY",
        "usd_per_million": {"input": 3, "output": 15},
    }
    with (
        pytest.MonkeyPatch.context() as patch,
        world(tmp_path_factory.mktemp("front"), teacher=teacher) as front,
        Anthropic(base_url=front.url, api_key="any", max_retries=0) as found,
    ):
        patch.setenv("ANTHROPIC_API_BASE", behind.url)
        yield found


@pytest.mark.parametrize("streamed", [False, True])
def test_signed_thinking_reaches_the_client_and_comes_back(behind: World, client: Anthropic, streamed: bool) -> None:
    def ask(*turns: Any) -> Any:
        thinking: Any = {"type": "enabled", "budget_tokens": 2000}
        given: dict[str, Any] = {"model": "locum/teacher", "max_tokens": 5000, "messages": turns, "thinking": thinking}
        if not streamed:
            return client.messages.create(**given)
        with client.messages.stream(**given) as stream:
            return stream.get_final_message()

    first = ask({"role": "user", "content": "what?"})
    thought, text = first.content
    assert (thought.to_dict(), text.text) == (THOUGHT, "blue")
    assert (first.stop_reason, first.usage.input_tokens, first.usage.cache_read_input_tokens) == ("end_turn", 40, 60)
    ask(
        {"role": "user", "content": "what?"},
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": "so?"},
    )
    sent = behind.teacher.seen[-1].body
    assert sent["messages"][1] == {"role": "assistant", "content": "blue", "thinking_blocks": [THOUGHT]}
    assert sent["reasoning_effort"] == "low"
