"""What stands in a record for a name that holds personal data: it tells people apart, and names nobody."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection
from pathlib import Path

from router.errors import StoreError
from router.store.redaction import redact

KEY_FILE = "names.key"
"""Beside the records. Who has it can test a guess; without it nobody can, not even by trying all addresses."""
KEY_BYTES = 32
_PREFIX = "redacted-"


class Pseudonyms:
    """Of one home: the same name has the same pseudonym there, in all its processes, as long as the key is there."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / KEY_FILE
        self._key = b""

    def all_of(self, name: str) -> tuple[str, ...]:
        """What records may call them: the name, and its pseudonym. Raises StoreError: the key cannot be read."""
        return (name, self.of(name)) if self._path.exists() else (name,)

    def kept(self, name: str, kinds: Collection[str]) -> str:
        """The name, or its pseudonym where the kinds of personal data are in it. Raises StoreError: no key is there,
        and none can be made."""
        return name if redact(name, kinds) == name else self.of(name)

    def of(self, name: str) -> str:
        """Raises StoreError: no key is there, and none can be made."""
        self._key = self._key or self._made()
        return _PREFIX + hashlib.blake2b(name.encode("utf-8", "replace"), key=self._key, digest_size=12).hexdigest()

    def keep(self) -> None:
        """Writes the key in use again where its file was deleted. Raises StoreError: it cannot be written."""
        if self._key:
            self._key = self._made(self._key)

    def _made(self, key: bytes = b"") -> bytes:
        """The key that is there, else this one or a new one; of several that make one at once, the first one's."""
        draft = self._path.with_name(f"{KEY_FILE}.{secrets.token_hex(4)}")
        try:
            if not self._path.exists():
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                draft.write_bytes(key or secrets.token_bytes(KEY_BYTES))
                try:
                    os.link(draft, self._path)
                except FileExistsError:
                    pass
                finally:
                    draft.unlink()
            found = self._path.read_bytes()
        except OSError as e:
            raise StoreError(f"cannot keep the key of users' names at {self._path}: {e.strerror}") from e
        if len(found) < KEY_BYTES:
            raise StoreError(f"{self._path} is damaged: move it away, and a new one is made")
        return found[:KEY_BYTES]
