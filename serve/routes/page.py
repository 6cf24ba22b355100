"""The web page at /: static files, nothing that is built or fetched from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from serve.model.server import Server

FILES = Path(__file__).parent.parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    # Nothing inline, nothing from elsewhere, in nobody's frame.
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


def router(server: Server) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    files = {path.name: path.read_bytes() for path in FILES.iterdir() if path.suffix in KINDS}
    settings = server.settings
    index = files.pop("index.html").decode()
    for name, on in (("docs", settings.docs), ("feedback", settings.feedback)):
        index = index.replace(f'data-{name}="yes"', f'data-{name}="{"yes" if on else "no"}"')

    def answer(name: str, content: bytes) -> Response:
        return Response(content, media_type=KINDS[Path(name).suffix], headers=HEADERS)

    @routes.get("/")
    async def page() -> Response:
        return answer("index.html", index.encode())

    @routes.get("/page/{name}")
    async def part(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        return answer(name, files[name])

    @routes.get("/favicon.ico")
    async def icon() -> Response:
        return answer("icon.svg", files["icon.svg"])

    return routes
