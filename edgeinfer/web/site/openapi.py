"""The description of the API for programs: /openapi.json."""

from __future__ import annotations

from starlette.routing import BaseRoute

from edgeinfer.web.site.views import Views


def routes(views: Views) -> list[BaseRoute]:
    """Where that is served."""
    return []
