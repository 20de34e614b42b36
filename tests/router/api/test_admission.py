"""Client keys: who may ask."""

from __future__ import annotations

import pytest

from router.api.admission import ClientKeys
from router.api.asgi import given_key
from router.errors import Unauthorized


def test_without_keys_everyone_may_ask() -> None:
    assert ClientKeys([]).check(None) == ClientKeys([]).check("any") == ""


@pytest.mark.parametrize("key", [None, "", "wrong"])
def test_with_keys_only_they_may(key: str | None) -> None:
    keys = ClientKeys(["right", "other"])
    assert keys.check("right") == ClientKeys(["right"]).check("right")
    assert "right" not in keys.check("right") != keys.check("other")
    with pytest.raises(Unauthorized) as caught:
        keys.check(key)
    assert "right" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({b"authorization": b"Bearer sk-1"}, "sk-1"),
        ({b"authorization": b"bearer  sk-1 "}, "sk-1"),
        ({b"authorization": b"Basic sk-1"}, None),
        ({b"authorization": b"sk-1"}, None),
        ({b"x-api-key": b"sk-1"}, "sk-1"),
        ({}, None),
    ],
)
def test_a_key_comes_as_openais_or_anthropics_clients_send_it(headers: dict[bytes, bytes], key: str | None) -> None:
    assert given_key(headers) == key
