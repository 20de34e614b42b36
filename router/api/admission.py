"""Who may ask, and how many streams at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from router.errors import TooManyStreams, Unauthorized


class ClientKeys:
    """The keys that clients may use; without any, every client may ask, and all are one. Only digests are kept."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._owners = {_digest(key): _owner(key) for key in keys}

    def check(self, key: str | None) -> str:
        """Whose request it is that came with this key: a name for the key that tells nothing of it, the same in every
        process and after every start. Without keys it is ``""``.

        The key's digest is looked up. How long that takes tells nothing of a key: who could choose what is compared
        would have to turn SHA-256 around.

        Raises:
            Unauthorized: keys are asked for, and this is none of them.
        """
        if not self._owners:
            return ""
        if not key:
            raise Unauthorized("no API key given: send 'Authorization: Bearer <key>'")
        if (owner := self._owners.get(_digest(key))) is None:
            raise Unauthorized("incorrect API key")
        return owner


class Streams:
    """How many streams are under way in this process; a context manager around each.

    Raises:
        TooManyStreams: on entering; there are ``limit`` already.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._open = limit, 0

    def __enter__(self) -> None:
        if self._open >= self._limit:
            raise TooManyStreams(f"{self._limit} streams are under way, which is this proxy's limit", retry_after="1")
        self._open += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _owner(key: str) -> str:
    """It goes into records, so that short keys must be dear to guess from it."""
    return "k" + hashlib.scrypt(key.encode(), salt=b"locum: whose request", n=2**11, r=8, p=1, dklen=6).hex()
