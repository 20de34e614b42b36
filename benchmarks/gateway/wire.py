"""HTTP/1.1 as far as the mock and the load generator need it."""

from __future__ import annotations

_LENGTH = b"content-length:"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class Inbox:
    """Collects one message at a time from a connection's bytes: a head, and a body by its length or in chunks.

    A connection never carries a second message before the first was answered, so nothing is left over.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._data = b""
        self._body_at = -1
        self._length: int | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The message's head and its body (chunks still framed), once it is whole."""
        self._data = data = self._data + data if self._data else data
        if self._body_at < 0:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                return None
            self._body_at = end + 4
            self._length = _length(data[:end])
        whole = data.endswith(_LAST_CHUNK) if self._length is None else len(data) >= self._body_at + self._length
        if not whole:
            return None
        head, body = data[: self._body_at], data[self._body_at :]
        self._clear()
        return head, body

    @property
    def has_content(self) -> bool:
        """Whether some of the unfinished message's body is there."""
        return 0 <= self._body_at < len(self._data)


def _length(head: bytes) -> int | None:
    """The body's length by the head; None where it comes in chunks."""
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        return None
    at = lower.find(_LENGTH)
    return 0 if at < 0 else int(lower[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
