"""An OpenAI-compatible server that answers as a test says, call by call, and in batches where it has them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from tests.fakes import FakeUpstream, Script, _send

EACH_USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


class LabelServer(FakeUpstream):
    """``says`` is its answer to a request's last message. Without ``batches`` it has none. A batch ``ends`` once it was
    looked at ``looks`` times; one of more than ``most`` lines fails. ``instead`` makes another line of a batch's
    answers of what it would be, by the custom id; None: none. ``listing`` is what it says of its model.
    So many looks at batches as it is ``down`` are answered with a 503."""

    def __init__(self) -> None:
        super().__init__("open-weights")
        self.batches = True
        self.says: Callable[[str], str] = lambda text: "ops" if "kubernetes" in text else "cards"
        self.answer = lambda body: Script(text=self.says(body["messages"][-1]["content"]), usage=EACH_USAGE)
        self.files: dict[str, bytes] = {}
        self.made: dict[str, dict[str, Any]] = {}
        self.looks = 1
        self.ends = "completed"
        self.after_making: Callable[[], None] = lambda: None
        self.instead: Callable[[str, dict[str, Any]], dict[str, Any] | None] = lambda call, line: line
        self.most = 10**9
        self.listing: dict[str, Any] = {}
        self.down = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path.endswith("/models"):
            await _send(send, 200, orjson.dumps({"data": [{"id": self.model, **self.listing}]}))
            return
        if scope["type"] != "http" or not re.search(r"/(files|batches)\b", path):
            await super().__call__(scope, receive, send)
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        if not self.batches:
            await _send(send, 404, orjson.dumps({"detail": "Not Found"}))
            return
        if self.down and scope["method"] == "GET":
            self.down -= 1
            await _send(send, 503, orjson.dumps({"error": {"message": "overloaded"}}))
            return
        status, content = self._batches(scope["method"], path.split("/v1", 1)[1], body)
        await _send(send, status, content)

    def _batches(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/files":
            name = f"file-{len(self.files)}"
            self.files[name] = b"\n".join(line for line in body.splitlines() if line.startswith(b'{"custom_id"'))
            return 200, orjson.dumps({"id": name, "object": "file"})
        if (found := re.fullmatch(r"/files/(.+)/content", path)) is not None:
            return 200, self.files[found[1]]
        if path == "/batches" and method == "POST":
            return self._make(orjson.loads(body))
        if path == "/batches":
            return 200, orjson.dumps({"data": list(self.made.values()), "has_more": False})
        name = path.split("/")[2]
        if name not in self.made:
            return 404, orjson.dumps({"error": {"message": "no such batch"}})
        return 200, orjson.dumps(self._looked(name, path.endswith("/cancel")))

    def _make(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        name = f"batch-{len(self.made)}"
        self.made[name] = {"id": name, "status": "in_progress", "looks": 0, **asked}
        self.after_making()
        return 200, orjson.dumps(self.made[name])

    def _looked(self, name: str, cancelled: bool) -> dict[str, Any]:
        batch = self.made[name]
        batch["looks"] += 1
        if cancelled or batch["looks"] >= self.looks:
            self._end(batch, "cancelled" if cancelled else self.ends)
        return batch

    def _end(self, batch: dict[str, Any], status: str) -> None:
        if batch["status"] != "in_progress":
            return
        lines = [orjson.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        if len(lines) > self.most:
            batch["status"] = "failed"
            batch["errors"] = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]}
            return
        batch["status"] = status
        told = [one for line in lines if (one := self.instead(line["custom_id"], self._line(line))) is not None]
        name = batch["output_file_id"] = f"out-{batch['id']}"
        self.files[name] = b"\n".join(map(orjson.dumps, told))

    def _line(self, line: dict[str, Any]) -> dict[str, Any]:
        self.asked_in_batches.append(line)
        script = self.answer(line["body"])
        body = self._whole(script, line["body"])
        return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}

    @property
    def asked_in_batches(self) -> list[dict[str, Any]]:
        return self.__dict__.setdefault("_lines", [])
