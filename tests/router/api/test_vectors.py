"""Embeddings in the form that was asked for."""

from typing import Any

import pytest

from router.api.vectors import in_form


def test_what_nests_too_deeply_to_be_written_again_is_told() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    with pytest.raises(ValueError, match="deeply"):
        in_form({"data": [{"embedding": [0.5], "more": deep}]}, "base64")
