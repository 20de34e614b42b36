"""Bundles as tests need them: a manifest that says what a test cares about, and nothing surprising of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from router.contracts.bundles import MANIFEST, DatasetRef, Manifest, StudentRef, Thresholds
from router.scoring.text.features import FEATURES_VERSION


def complete(bundles: Path, name: str, **values: Any) -> Path:
    """Makes ``bundles/name`` a complete bundle by writing its manifest, with these values; returns its folder."""
    home = bundles / name
    home.mkdir(parents=True, exist_ok=True)
    usual: dict[str, Any] = {
        "bundle_id": name,
        "policy": "default",
        "created_at": 0.0,
        "student": StudentRef(model="small"),
        "features_version": FEATURES_VERSION,
        "thresholds": Thresholds(route=0.5, accept=0.5),
        "dataset": DatasetRef(sha256="0" * 64, train=1, dev=1, holdout=1),
    }
    (home / MANIFEST).write_text(Manifest.model_validate(usual | values).model_dump_json())
    return home
