"""What the environment may say."""

from __future__ import annotations

import pytest

from router.errors import SettingsError
from router.settings import Settings


@pytest.mark.parametrize("given", [",", " ", " , ,", "\n"])
def test_a_list_of_keys_without_a_key_serves_nobody(given: str) -> None:
    with pytest.raises(SettingsError, match="LOCUM_API_KEYS is set and holds no key"):
        Settings.from_env({"LOCUM_API_KEYS": given})


@pytest.mark.parametrize("wrong", ["ключ", "sk-é", "sk-\x00b", "sk-\udcff"])
def test_a_key_that_no_client_can_send_is_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(SettingsError, match="key 2 of the list") as told:
        Settings.from_env({"LOCUM_API_KEYS": f"good, {wrong}"})
    assert wrong not in str(told.value)


@pytest.mark.parametrize(("given", "keys"), [("", set()), ("k1", {"k1"}), (" k1, k 2 ,", {"k1", "k 2"})])
def test_other_lists_are_read(given: str, keys: set[str]) -> None:
    assert Settings.from_env({"LOCUM_API_KEYS": given}).client_keys == keys
