"""Waits until the running proxy serves a bundle: it follows the pointer by itself, this only looks."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

from router.settings import Settings


def wait_until_live(
    settings: Settings, policy: str, bundle: str | None, seconds: float = 120.0, canary: bool = False
) -> str:
    """One sentence on whether the proxy of this home serves ``bundle`` (None: the base student alone), or tries it as
    a ``canary``."""
    name, how = bundle or "the base student", "a canary beside what is live" if canary else "live"
    url = proxy_url(settings)
    if url is None:
        return f"{name} is active; no proxy is running in {settings.home}, the next one starts with it"
    start = time.monotonic()
    while (waited := time.monotonic() - start) < seconds:
        found = _policy_state(url, policy)
        if found is not None and _serves(found, bundle, canary):
            return f"{name} is {how} at {url} after {waited:.1f} s"
        time.sleep(0.2)
    return f"{name} is active, but {url} did not serve it within {seconds:.0f} s: see {settings.logs}"


def _serves(found: dict[str, Any], bundle: str | None, canary: bool) -> bool:
    if canary:
        return found.get("canary") == bundle
    return found.get("bundle") == bundle and bool(found.get("student", {}).get("ready"))


def proxy_url(settings: Settings) -> str | None:
    """Where this home's proxy says it listens, if it answers there; None where none runs."""
    try:
        url = str(json.loads((settings.run / "proxy.json").read_bytes())["url"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None
    return url if _get(f"{url}/health/live") is not None else None


def _policy_state(url: str, policy: str) -> dict[str, Any] | None:
    ready = _get(f"{url}/health/ready")
    policies: list[dict[str, Any]] = ready.get("policies", []) if ready else []
    return next((p for p in policies if p.get("policy") == policy), None)


def _get(url: str) -> dict[str, Any] | None:
    """The JSON answer, also of one that says 503: unready is an answer. None where nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            body = response.read()
    except urllib.error.HTTPError as e:
        body = e.read()
    except (urllib.error.URLError, OSError):
        return None
    try:
        found = json.loads(body)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
