"""The chat page at ``/``: static files, served under a policy that lets them load and call nothing but this server."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import Response

from .errors import NoSuchRoute

FOLDER = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # the browser itself refuses to make HTML of a text
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again each time, and answered with 304 while it is the same
}
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class File:
    """``etag`` changes with the content."""

    content: bytes
    kind: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> File:
        content = path.read_bytes()
        return cls(content, KINDS[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')

    def answer(self, request: Request) -> Response:
        """The file, or 304 to a browser that has it."""
        headers = {**HEADERS, "ETag": self.etag}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.kind)


def files() -> dict[str, File]:
    """The files of the page by name."""
    return {path.name: File.read(path) for path in FOLDER.iterdir() if path.suffix in KINDS}


def page_routes(app: FastAPI) -> None:
    """Add them to ``app``. The files are read once, and no name reaches the file system."""
    found = files()

    @app.get("/")
    async def index(request: Request) -> Response:
        return found[INDEX].answer(request)

    @app.get("/page/{file}")
    async def part(request: Request, file: str) -> Response:
        if file not in found or file == INDEX:
            raise NoSuchRoute(f"the page has no file {file[:60]!r}")
        return found[file].answer(request)
