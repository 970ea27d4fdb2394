"""What stands at /healthz, /readyz and /metrics."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import msgspec

from edgeinfer.web import readiness
from edgeinfer.web.numbers import Numbers
from edgeinfer.web.readiness import Health, Observation
from edgeinfer.web.server import Answer, Routes

NO_LIBRARY = b"metrics need prometheus-client, which is not installed: pip install 'edgeinfer[metrics]'\n"


def routes(observe: Callable[[], Observation], take: Callable[[], Numbers], min_sources: int) -> Routes:
    """The pages. `observe` gives the daemon's state, `take` its numbers; both from any thread."""
    return {
        "/healthz": lambda _: _answer(readiness.alive(observe())),
        "/readyz": lambda _: _answer(readiness.ready(observe(), min_sources)),
        "/metrics": _metrics(take),
    }


def _answer(verdict: Health) -> Answer:
    body = {"ok": verdict.ok, "reasons": verdict.reasons}
    return Answer(200 if verdict.ok else 503, msgspec.json.encode(body) + b"\n")


def _metrics(take: Callable[[], Numbers]) -> Callable[[str], Answer]:
    try:
        module = importlib.import_module("edgeinfer.web.metrics")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        return lambda _: Answer(501, NO_LIBRARY, "text/plain")
    page: Callable[[str], Answer] = module.Metrics(take).answer
    return page
