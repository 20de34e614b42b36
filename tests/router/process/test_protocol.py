"""No connection is held for ever, whoever lets it wait; and what a client is told reaches it."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import Command, command, one_answer, post, rest_of, up_to
from tests.fakes import DEADLINE_SECONDS, until

CHAT: dict[str, Any] = {"model": "locum/teacher", "messages": [{"role": "user", "content": "hi"}]}
KEY = "authorization: Bearer key"
PATH = "/v1/chat/completions"
QUICK = {
    "LOCUM_API_KEYS": "key",
    "LOCUM_MAX_HEAD_SECONDS": "1",
    "LOCUM_MAX_BODY_SECONDS": "1",
    "LOCUM_MAX_IDLE_SECONDS": "1",
    "LOCUM_MAX_STALL_SECONDS": "1",
    "LOCUM_MAX_STRANGERS": "4",
}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    with command(tmp_path_factory.mktemp("hasty"), QUICK) as found:
        yield found


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Nothing that it closes is for lack of time."""
    with command(tmp_path_factory.mktemp("patient"), {"LOCUM_API_KEYS": "key"}) as found:
        yield found


def head_and_body(answer: bytes) -> tuple[str, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode().lower(), body


def error_in(answer: bytes) -> Any:
    return json.loads(head_and_body(answer)[1])["error"]


def test_a_connection_that_says_nothing_is_closed(hasty: Command) -> None:
    assert hasty.exchanged() == b""


def test_what_was_asked_while_the_process_was_held_up_is_answered(hasty: Command) -> None:
    with hasty.connect() as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
        hasty.process.send_signal(signal.SIGSTOP)
        try:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            with suppress(TimeoutError):  # longer than a connection may be idle
                connection.settimeout(3.0)
                connection.recv(1)
        finally:
            hasty.process.send_signal(signal.SIGCONT)
        connection.settimeout(DEADLINE_SECONDS)
        assert one_answer(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begun", [b"POST /v1/chat", b"GET / HTTP/1.1\r\nx: y\r\n", b"\r\n\r\n"])
def test_a_head_that_does_not_come_whole_is_a_408(hasty: Command, begun: bytes) -> None:
    answer = hasty.exchanged(begun)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert error_in(answer)["code"] == "request_timeout"


def test_a_head_that_trickles_gets_no_more_time(hasty: Command) -> None:
    with hasty.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx: ")
        connection.settimeout(0.05)
        answer = b""
        while not answer:
            connection.sendall(b"y")
            with suppress(TimeoutError):
                answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed_also_where_empty_lines_are_sent(hasty: Command) -> None:
    with hasty.connect() as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        assert rest_of(connection) == b""


@pytest.mark.parametrize("path", [PATH, "/v1/messages"])
def test_a_body_that_does_not_come_is_a_408_in_the_surfaces_form(hasty: Command, path: str) -> None:
    head, body = head_and_body(hasty.exchanged(post(path, b"x" * 1000, KEY)[:-999]))
    assert head.startswith("http/1.1 408 ") and "connection: close" in head
    assert ("request_id" in json.loads(body)) == (path == "/v1/messages")
    assert 'cause="body_too_slow"' in httpx.get(f"{hasty.url}/metrics").text


@pytest.mark.parametrize("path", [PATH, "/v1/messages", "/v1/models", "/v1/responses/resp_1"])
def test_without_a_key_no_body_is_waited_for(patient: Command, path: str) -> None:
    head, _ = head_and_body(patient.exchanged(post(path, b"x" * 60_000_000)[:1000]))
    assert head.startswith(("http/1.1 401 ", "http/1.1 405 ")) and "connection: close" in head


def test_a_refusal_is_read_by_a_client_that_is_still_sending(patient: Command) -> None:
    """Closed at once, the connection would be reset, and the answer lost."""
    with patient.connect() as connection:
        connection.sendall(post(PATH, b"x" * 60_000_000)[:100_000])
        for _ in range(20):
            connection.sendall(b"x" * 10_000)
        assert rest_of(connection).startswith(b"HTTP/1.1 401 ")


def test_strangers_make_room_for_each_other_and_for_whoever_shows_a_key(hasty: Command) -> None:
    with ExitStack() as stack:
        known = stack.enter_context(hasty.connect())
        known.sendall(post(PATH, CHAT, KEY))
        assert b" 200 " in one_answer(known)
        strangers = [stack.enter_context(hasty.connect()) for _ in range(8)]
        assert ask(hasty).status_code == 200
        strangers[0].settimeout(DEADLINE_SECONDS)
        with suppress(ConnectionResetError):
            assert strangers[0].recv(1) == b""
        known.sendall(post(PATH, CHAT, KEY))
        assert b" 200 " in one_answer(known)


def ask(proxy: Command, **more: Any) -> httpx.Response:
    headers = {"authorization": "Bearer key"}
    return httpx.post(f"{proxy.url}{PATH}", json=CHAT | more, headers=headers, timeout=DEADLINE_SECONDS)


def test_a_client_that_reads_nothing_is_cut_off_and_recorded_as_gone(hasty: Command) -> None:
    hasty.teacher.always(deltas=tuple({"content": "x" * 100_000} for _ in range(200)))
    with hasty.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(post(PATH, CHAT | {"stream": True, "user": "sleeper"}, KEY))
        found = until(lambda: next((r for r in hasty.records() if r.user == "sleeper"), None))
    hasty.teacher.always()
    assert found.status == 499


def test_a_whole_answer_that_nobody_takes_is_thrown_away(hasty: Command) -> None:
    hasty.teacher.always(text="x" * 20_000_000)
    with hasty.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(post(PATH, CHAT, KEY, "connection: close"))
        head = connection.recv(20)
        until(lambda: not established(hasty, connection))
    hasty.teacher.always()
    assert head.startswith(b"HTTP/1.1 200 ")


def established(proxy: Command, connection: socket.socket) -> bool:
    """Whether the proxy still holds its end."""
    port, own = connection.getpeername()[1], connection.getsockname()[1]
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = f"0100007F:{port:04X} 0100007F:{own:04X} 01"
    return any(ends in " ".join(line.split()[1:4]) for line in lines)


def test_an_answer_that_is_read_slowly_but_steadily_comes_whole(hasty: Command) -> None:
    hasty.teacher.always(text="x" * 3_000_000)
    with hasty.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(post(PATH, CHAT, KEY, "connection: close"))
        assert len(rest_of(connection)) > 3_000_000
    hasty.teacher.always()


def test_what_is_no_http_is_told_in_openais_shape(patient: Command) -> None:
    for nonsense in (b"hello\r\n\r\n", b"BREW /v1/models HTTP/1.1\r\n\r\n", b"GET /v1/models HTTP/9.9\r\n\r\n"):
        answer = patient.exchanged(nonsense)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert error_in(answer)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "headers",
    [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "content-length: 5\r\ncontent-length: 6",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "transfer-encoding: xchunked, identity",
    ],
)
def test_a_request_with_two_ends_is_refused(patient: Command, headers: str) -> None:
    smuggled = b"0\r\n\r\nGET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = patient.exchanged(f"POST {PATH} HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n".encode() + smuggled)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_nonsense_after_a_request_is_never_written_into_its_answer(patient: Command) -> None:
    patient.teacher.always(hang_after=2)
    with patient.connect() as connection:
        connection.sendall(post(PATH, CHAT | {"stream": True, "user": "mixed"}, KEY))
        up_to(connection, b"hello")
        connection.sendall(b"\x00nonsense\r\n\r\n")
        assert b"HTTP/1.1" not in rest_of(connection)
    patient.teacher.always()
    assert until(lambda: next((r for r in patient.records() if r.user == "mixed"), None)).status == 499


def test_requests_sent_together_are_answered_in_their_order(patient: Command) -> None:
    requests = [post(PATH, CHAT, KEY) for _ in range(4)]
    answer = patient.exchanged(b"".join(requests) + post("/v1/nowhere", b"", "connection: close"))
    assert (answer.count(b"HTTP/1.1 200 "), answer.count(b"HTTP/1.1 404 ")) == (4, 1)


def test_http_1_0_gets_no_chunks_and_its_connection_ends(patient: Command) -> None:
    for stream in (False, True):
        head, body = head_and_body(patient.exchanged(post(PATH, CHAT | {"stream": stream}, KEY, version="1.0")))
        assert head.startswith("http/1.1 200 ") and "connection: close" in head
        assert "transfer-encoding" not in head
        assert body.rstrip().endswith(b"data: [DONE]" if stream else b"}")


def test_http_1_0_keeps_its_connection_where_it_asks_for_it(patient: Command) -> None:
    with patient.connect() as connection:
        for _ in range(2):
            connection.sendall(post(PATH, CHAT, KEY, "connection: keep-alive", version="1.0"))
            head, _ = head_and_body(one_answer(connection))
            assert "connection: keep-alive" in head and "content-length" in head
        connection.sendall(post(PATH, CHAT | {"stream": True}, KEY, "connection: keep-alive", version="1.0"))
        head, body = head_and_body(rest_of(connection))
        assert "connection: close" in head and body.endswith(b"data: [DONE]\n\n")


def test_an_offer_of_another_protocol_is_passed_over(patient: Command) -> None:
    """Java's client offers HTTP/2 with every first request."""
    offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAoAAAAAIAAAAA")
    with patient.connect() as connection:
        for _ in range(2):
            connection.sendall(post(PATH, CHAT, KEY, *offer))
            assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert rest_of(connection).startswith(b"HTTP/1.1 200 ")


def test_500_connections_without_a_key_keep_nobody_out(patient: Command) -> None:
    with ExitStack() as stack:
        begun = [stack.enter_context(patient.connect()) for _ in range(500)]
        for connection in begun[250:]:
            connection.sendall(b"POST /v1/chat")
        answers: list[int] = []
        asking = [threading.Thread(target=lambda: answers.append(ask(patient).status_code)) for _ in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(DEADLINE_SECONDS)
        assert answers == [200] * 4
