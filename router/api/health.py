"""``/health/live``, ``/health/ready`` and ``/metrics``: for supervisors, load balancers and Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from router.cascade.cascade import Cascade
from router.cascade.drain import Drain
from router.metrics.metrics import Metrics
from router.served.catalog import Catalog


def state_of(cascade: Cascade) -> dict[str, Any]:
    """Which tiers of one policy can answer now. A circuit that is open cannot; a key that lacks is told."""
    live = cascade.live
    student = cascade.backends.student(live.student) if live.student else None
    return {
        "policy": cascade.policy.name,
        "bundle": live.bundle,
        "canary": cascade.canary.bundle if cascade.canary else None,
        "student": {
            "ready": student is not None and cascade.reachable(student),
            "version": live.student.version if live.student else None,
        },
        "teacher": {
            "ready": any(cascade.reachable(t) for t in cascade.backends.teachers),
            "backends": [{"model": t.label, "ready": cascade.reachable(t)} for t in cascade.backends.teachers],
        },
    }


@dataclass(frozen=True, slots=True)
class Problems:
    """What an operator should know: of the proxy, and by policy. None makes it unready: what was live before is."""

    own: Sequence[str]
    of: Mapping[str, Sequence[str]]


def routes(
    catalog: Callable[[], Catalog], metrics: Metrics, problems: Callable[[], Problems], drain: Drain
) -> APIRouter:
    router = APIRouter()

    @router.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/health/ready")
    async def ready() -> JSONResponse:
        """200 where every policy has a tier that can answer, and this process is not about to end."""
        told = problems()
        policies = [state_of(c) | {"problems": told.of.get(c.policy.name, ())} for c in catalog().cascades]
        able = all(p["student"]["ready"] or p["teacher"]["ready"] for p in policies)
        status = "draining" if drain.began else "ready" if able else "unready"
        content = {"status": status, "problems": told.own, "policies": policies}
        return JSONResponse(content, status_code=200 if status == "ready" else 503)

    @router.get("/metrics")
    async def expose() -> Response:
        return Response(metrics.expose(), media_type=metrics.content_type)

    return router
