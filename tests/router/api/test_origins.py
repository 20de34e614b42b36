"""Pages of other origins may ask where the settings name them, and where they do not nothing is different."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.errors import SettingsError
from router.settings import Settings
from tests.commands import Command, command
from tests.fakes import DEADLINE_SECONDS

PAGE = "https://app.example.com"
CHAT: dict[str, Any] = {"model": "locum/teacher", "messages": [{"role": "user", "content": "hi"}]}
KEY = {"authorization": "Bearer key"}
ALLOWS = "access-control-allow-origin"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    env = {"LOCUM_ORIGINS": f"{PAGE}, http://localhost:3000", "LOCUM_API_KEYS": "key", "LOCUM_MAX_BODY_BYTES": "10000"}
    with command(tmp_path_factory.mktemp("proxy"), env, ("--workers", "2")) as found:
        yield found


def preflight(url: str, path: str, origin: str = PAGE, method: str = "POST") -> httpx.Response:
    asked = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization,content-type,x-locum-tier,x-stainless-os",
    }
    return httpx.options(f"{url}{path}", headers=asked, timeout=DEADLINE_SECONDS)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/models", "/v1/nowhere"])
def test_a_page_may_ask_before_it_asks(proxy: Command, path: str) -> None:
    for origin in (PAGE, "http://localhost:3000"):
        answer = preflight(proxy.url, path, origin)
        assert answer.is_success
        assert answer.headers[ALLOWS] == origin
        assert "POST" in answer.headers["access-control-allow-methods"]
        allowed = answer.headers["access-control-allow-headers"]
        assert all(name in allowed for name in ("authorization", "content-type", "x-locum-tier", "x-stainless-os"))


def test_another_origins_page_may_not(proxy: Command) -> None:
    answer = preflight(proxy.url, "/v1/chat/completions", "https://evil.example.com")
    assert not answer.is_success and ALLOWS not in answer.headers
    answer = httpx.post(
        f"{proxy.url}/v1/chat/completions", json=CHAT, headers=KEY | {"origin": f"{PAGE}.evil.example.com"}
    )
    assert ALLOWS not in answer.headers


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/chat/completions", CHAT, KEY, 200),
        ("/v1/chat/completions", CHAT | {"stream": True}, KEY, 200),
        ("/v1/chat/completions", CHAT, {}, 401),
        ("/v1/chat/completions", CHAT | {"model": "gpt-9"}, KEY, 404),
        ("/v1/chat/completions", CHAT | {"pad": "x" * 10_000}, KEY, 413),
        ("/v1/messages", CHAT, KEY, 400),
        ("/v1/nowhere", CHAT, KEY, 404),
    ],
)
def test_a_page_may_read_answers_of_all_kinds(
    proxy: Command, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    answer = httpx.post(f"{proxy.url}{path}", json=body, headers=headers | {"origin": PAGE}, timeout=DEADLINE_SECONDS)
    assert (answer.status_code, answer.headers[ALLOWS]) == (status, PAGE)
    assert "origin" in answer.headers["vary"].lower()
    assert "x-locum-request-id" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


def test_who_comes_from_no_page_sees_no_difference(proxy: Command) -> None:
    answer = httpx.post(f"{proxy.url}/v1/chat/completions", json=CHAT, headers=KEY, timeout=DEADLINE_SECONDS)
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_all_origins_are_named_by_a_star_alone(tmp_path: Path) -> None:
    with command(tmp_path, {"LOCUM_ORIGINS": "*"}) as proxy:
        assert preflight(proxy.url, "/v1/models", method="GET").headers[ALLOWS] == "*"
        answer = httpx.get(f"{proxy.url}/v1/models", headers={"origin": PAGE}, timeout=DEADLINE_SECONDS)
        assert answer.headers[ALLOWS] == "*"


def test_without_origins_there_is_no_such_header_and_what_is_not_served_is_told(tmp_path: Path) -> None:
    with command(tmp_path) as proxy:
        for path, allowed in (("/v1/chat/completions", "POST"), ("/v1/models", "GET")):
            for method in ("OPTIONS", "PATCH", "TRACE"):
                headers = {"origin": PAGE, "access-control-request-method": "POST"}
                answer = httpx.request(method, f"{proxy.url}{path}", headers=headers, timeout=DEADLINE_SECONDS)
                assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
                assert answer.json()["error"]["type"] == "invalid_request_error"
                assert not any(name.startswith("access-control") for name in answer.headers)
        assert httpx.options(f"{proxy.url}/v1/nowhere").json()["error"]["type"] == "invalid_request_error"


def test_head_is_get_without_its_body(proxy: Command) -> None:
    for path, headers, status in (("/v1/models", KEY, 200), ("/health/live", {}, 200), ("/v1/models", {}, 401)):
        got = httpx.get(f"{proxy.url}{path}", headers=headers, timeout=DEADLINE_SECONDS)
        answer = httpx.head(f"{proxy.url}{path}", headers=headers, timeout=DEADLINE_SECONDS)
        assert (answer.status_code, answer.content) == (status, b"")
        assert answer.headers["content-length"] == got.headers["content-length"]
    answer = httpx.head(f"{proxy.url}/v1/chat/completions", headers=KEY, timeout=DEADLINE_SECONDS)
    assert (answer.status_code, answer.content) == (405, b"")


def test_origins_come_from_the_environment_and_nonsense_is_told() -> None:
    assert Settings.from_env({"LOCUM_ORIGINS": f"{PAGE}, *"}).origins == (PAGE, "*")
    assert Settings.from_env({}).origins == ()
    for wrong in ("app.example.com", "https://app.example.com/path"):
        with pytest.raises(SettingsError, match="LOCUM_ORIGINS"):
            Settings.from_env({"LOCUM_ORIGINS": wrong})
