"""What stands at /healthz, /readyz and /metrics."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import msgspec

from edgeinfer import recipe
from edgeinfer.flow.statistics import Statistics
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.web import readiness
from edgeinfer.web.readiness import Health
from edgeinfer.web.request import Answer, Routes

_EXTRA = recipe.pip("install 'edgeinfer[metrics]'")
NO_LIBRARY = f"metrics need prometheus-client, which is not installed: {_EXTRA}\n".encode()


def routes(picture: Callable[[], DaemonSnapshot], stats: Statistics, min_sources: int) -> Routes:
    """The pages. `picture` gives the daemon as it is, from any thread; `stats` its frames' times."""
    return {
        "/healthz": lambda _: _answer(readiness.alive(picture())),
        "/readyz": lambda _: _answer(readiness.ready(picture(), min_sources)),
        "/metrics": _metrics(picture, stats),
    }


def _answer(health: Health) -> Answer:
    body = {"ok": health.ok, "reasons": health.reasons}
    return Answer(200 if health.ok else 503, msgspec.json.encode(body) + b"\n")


def _metrics(picture: Callable[[], DaemonSnapshot], stats: Statistics) -> Callable[[str], Answer]:
    try:
        module = importlib.import_module("edgeinfer.web.metrics")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        return lambda _: Answer(501, NO_LIBRARY, "text/plain")
    page: Callable[[str], Answer] = module.Metrics(picture, stats).answer
    return page
