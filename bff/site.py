"""A built single-page app, served as files: `BFF_STATIC_DIR`.

Starlette does what is easily done wrong: finding a file without a way out of the folder (symbolic links
included), validators, ranges. No thread is held while a slow browser takes a large file.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from bff.errors import BadRequest, RangeNotSatisfiable, RouteNotFound
from bff.request import RequestHead

INDEX = "index.html"

_IMMUTABLE = b"public, max-age=31536000, immutable"
_REVALIDATE = b"no-cache"
# A content hash as bundlers write it, before the ending: hexadecimal, or eight characters of both cases or of
# capitals, with a digit that is followed by a letter. A name that a person chose, as in Guide2024.pdf, must
# not match: what is cached for a year cannot be called back, and a hash that is missed costs one 304.
_HASHED = re.compile(
    r"[.-](?=[^.]*\d[^.\d]*[A-Za-z])(?!\d{6})"
    r"(?:(?=[^.]*[a-f][^.]*[a-f])[0-9a-f]{8,64}|(?=[^.]*[a-z])(?=[^.]*[A-Z])[A-Za-z0-9_-]{8}"
    r"|(?![^.]*\d{3}\.)[0-9A-Z]{8})"
    r"(?:\.[a-z0-9]+){1,3}\Z"
)
_HIDDEN = re.compile(r"(?:^|/)\.(?!well-known/)")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Site:
    """The files of a folder, and its `index.html` for pages that only the app's own router knows."""

    def __init__(self, folder: Path, policy: str) -> None:
        """`policy` is the content security policy of all its answers."""
        self._files = StaticFiles(directory=folder)
        self._policy = policy.encode()

    async def __call__(
        self, path: str, scope: Any, receive: Any, send: Send, *, navigation: bool = False
    ) -> None:
        """Answer a canonical path; where no file has it, `navigation` brings `index.html`.

        Raises RouteNotFound, BadRequest or RangeNotSatisfiable.
        """
        scope = _without_odd_ranges(scope)
        name = unquote(path).lstrip("/") or INDEX
        response = await self._find(name, scope)
        if response is None and navigation:
            name = INDEX
            response = await self._find(name, scope)
        if response is None:
            raise RouteNotFound("No page, no route and no file has this address.")
        await response(scope, receive, self._completed(send, hashed=_HASHED.search(name) is not None))

    async def _find(self, name: str, scope: Any) -> Response | None:
        if _HIDDEN.search(name) or name.endswith("/"):  # .git, .env: deployed by mistake
            return None
        try:
            return await self._files.get_response(name, scope)
        except (HTTPException, OSError):
            return None

    def _completed(self, send: Send, *, hashed: bool) -> Send:
        """A `send` that adds our headers, and turns the library's refusals into ours."""
        added = [
            (b"content-security-policy", self._policy),
            (b"cache-control", _IMMUTABLE if hashed else _REVALIDATE),
            (b"referrer-policy", b"same-origin"),
            (b"vary", b"Sec-Fetch-Mode, Accept"),
        ]

        async def complete(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0] not in (b"cache-control", b"vary")]
                if message["status"] == 416:
                    raise RangeNotSatisfiable(dict(headers)[b"content-range"].decode())
                if message["status"] >= 400:
                    raise BadRequest("The Range of this request cannot be read.")
                message = {**message, "headers": [*headers, *added]}
            await send(message)

        return complete


def _without_odd_ranges(scope: Any) -> Any:
    """Ranges are for GET, and in bytes; others are to be ignored (RFC 9110 §14.2)."""
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if name != b"range" or (scope["method"] == "GET" and value.lower().startswith(b"bytes="))
    ]
    return {**scope, "headers": kept}


def is_navigation(head: RequestHead) -> bool:
    """Whether a person goes to this address, and not a script or a tag of a page."""
    mode = head.single(b"sec-fetch-mode")
    if head.has(b"sec-fetch-mode"):
        return mode == b"navigate"
    kinds = [
        kind.partition(b";")[0].strip().lower() for kind in b",".join(head.values(b"accept")).split(b",")
    ]
    return b"text/html" in kinds
