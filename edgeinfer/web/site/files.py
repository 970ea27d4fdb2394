"""The page's own files, read once: they come with the package and don't change while it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgeinfer.web.site.answers import Refusal

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
}
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file, and what names this very content of it."""

    body: bytes
    content_type: str
    etag: str


class StaticFolder:
    """`/` is its index.html, `/static/NAME` the others; one of an unknown kind is not served."""

    def __init__(self, folder: Path) -> None:
        self._files = dict(_read(folder))

    def routes(self) -> list[Route]:
        """Where they are served."""
        return [
            Route("/", self._index, methods=["GET"]),
            Route("/static/{name:path}", self._named, methods=["GET"]),
        ]

    async def _index(self, request: Request) -> Response:
        return self._answer(request, INDEX)

    async def _named(self, request: Request) -> Response:
        return self._answer(request, request.path_params["name"])

    def _answer(self, request: Request, name: str) -> Response:
        file = self._files.get(name)
        if file is None:
            raise Refusal(404, "not-found", "there is nothing here")
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers={**headers, "Content-Type": file.content_type})


def _read(folder: Path) -> Iterator[tuple[str, StaticFile]]:
    for path in sorted(folder.rglob("*")):
        kind = TYPES.get(path.suffix)
        if kind is not None and path.is_file():
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            yield path.relative_to(folder).as_posix(), StaticFile(body, kind, etag)
