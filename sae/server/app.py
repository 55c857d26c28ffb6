"""A catalog as a local web page: a small ASGI application that reads cards and keeps explanations. Imports no torch.

It serves a fixed set of files and what the catalog holds, nothing else: no path of a request ever becomes a path on the
disk. Pages may run and load only what comes from here; other sites can neither read nor write, nor reach it by another
host name.

    GET  /api/about                         what the catalog is of
    GET  /api/overview                      overview.json
    GET  /api/columns/KIND                  columns as one safetensors file
    GET  /api/card/KIND/INDEX               a card, compressed as it lies in its file
    GET  /api/titles/KIND?index=1,2,3       titles by number
    GET  /api/search/KIND?q=TEXT&limit=200  cards whose title, words or explanations hold every word of the text
    GET  /api/matching/KIND?q=TEXT          the numbers of all of these
    GET  /api/explanations/KIND/INDEX       explanations of a card
    POST /api/explanations/KIND/INDEX       {"act": "add", ...}; all acts are those of `features/explanations.py`
    GET, POST /api/live/...                 questions to the loaded subject; see `live.py`
    GET /api/lab/..., /lab/...              what the laboratory found; see `lab.py`
"""

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sae.errors import CatalogError
from sae.features.catalog import Catalog, Shelf
from sae.features.explanations import Explanations, StaleEditError
from sae.server.files import IMAGE_NAME, page_files
from sae.server.lab import LabPages
from sae.server.live import Ask, LiveAnswers
from sae.server.requests import refuse_other_sites, small_json
from sae.server.search import matching, search

HOSTS = ["127.0.0.1", "localhost"]
MOST_BODY_BYTES = 64 * 1024
MOST_TITLES = 1000
MOST_FOUND = 2000
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def create_app(catalog: Catalog, asks: Mapping[str, Ask] | None = None) -> ASGIApp:
    """Return the application for one catalog.

    Args:
        catalog: what to show.
        asks: what answers questions to the loaded subject, by name; none without one.
    """
    pages, live = Pages(catalog), LiveAnswers(asks or {})
    routes = [
        Route("/api/about", pages.about),
        Route("/api/overview", pages.overview),
        Route("/api/columns/{kind}", pages.columns),
        Route("/api/card/{kind}/{index}", pages.card),
        Route("/api/titles/{kind}", pages.titles),
        Route("/api/search/{kind}", pages.search),
        Route("/api/matching/{kind}", pages.matching),
        Route("/api/explanations/{kind}/{index}", pages.explanations),
        Route("/api/explanations/{kind}/{index}", pages.explain, methods=["POST"]),
        Route("/api/live", live.about),
        Route("/api/live/{name}", live.answer, methods=["POST"]),
        *LabPages(catalog).routes(),
        Route("/images/{name}", pages.image),
        Route("/{name}", pages.page),
        Route("/", pages.page),
    ]
    errors: dict[Any, Callable[[Request, Any], Any]] = {
        StaleEditError: _problem(409),
        CatalogError: _problem(500),
        HTTPException: lambda _, error: JSONResponse({"error": error.detail}, error.status_code),
    }
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)]
    return _with_headers(Starlette(routes=routes, exception_handlers=errors, middleware=middleware))


class Pages:
    """The answers. Those that read files are plain functions, which Starlette runs in threads; the others need none."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.said = Explanations(catalog.path)
        self.files = {name: (zlib.compress(content), kind) for name, (content, kind) in page_files().items()}

    async def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in self.files:
            raise HTTPException(404, "no such page")
        return _compressed(request, *self.files[name])

    def image(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = self.catalog.path / "images" / name
        if not IMAGE_NAME.fullmatch(name) or not path.is_file():
            raise HTTPException(404, "no such image")
        return Response(path.read_bytes(), media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    async def about(self, _: Request) -> Response:
        return JSONResponse(asdict(self.catalog.about) | {"path": str(self.catalog.path)})

    def overview(self, _: Request) -> Response:
        return JSONResponse(self.catalog.overview)

    def columns(self, request: Request) -> Response:
        path = self._shelf(request).folder / "columns.safetensors"
        if not path.is_file():
            raise HTTPException(404, "no columns")
        return Response(path.read_bytes(), media_type="application/octet-stream")

    def card(self, request: Request) -> Response:
        return _compressed(request, self._shelf(request).packed(self._index(request)), "application/json")

    def titles(self, request: Request) -> Response:
        words = self._shelf(request).words
        asked = request.query_params.get("index", "").split(",")[:MOST_TITLES]
        wanted = [int(one) for one in asked if _is_index(one) and int(one) < len(words)]
        return JSONResponse({str(index): words[index][0] for index in wanted})

    def search(self, request: Request) -> Response:
        limit = request.query_params.get("limit", "200")
        most = min(int(limit), MOST_FOUND) if _is_index(limit) else 200
        return JSONResponse(search(*self._looked_for(request), most))

    def matching(self, request: Request) -> Response:
        return JSONResponse({"indices": [index for index, _ in matching(*self._looked_for(request))]})

    def _looked_for(self, request: Request) -> tuple[str, list[tuple[str, str]], dict[int, str]]:
        shelf = self._shelf(request)
        said = {index: "\n".join(one.text for one in found) for index, found in self.said.by_card(shelf.kind).items()}
        return request.query_params.get("q", ""), shelf.words, said

    def explanations(self, request: Request) -> Response:
        kind, index = self._shelf(request).kind, self._index(request)
        return JSONResponse([one.to_json() for one in self.said.of(kind, index)])

    async def explain(self, request: Request) -> Response:
        refuse_other_sites(request)
        kind, index = self._shelf(request).kind, self._index(request)
        body = await small_json(request, MOST_BODY_BYTES)
        try:
            await run_in_threadpool(self._act, kind, index, body)
        except StaleEditError:
            raise
        except CatalogError as error:
            raise HTTPException(400, str(error)) from error
        said = await run_in_threadpool(self.said.of, kind, index)
        return JSONResponse([one.to_json() for one in said])

    def _act(self, kind: str, index: int, body: dict[str, Any]) -> None:
        act, author, name = body.get("act"), body.get("author", ""), str(body.get("of"))
        if act == "add":
            self.said.add(kind, index, body.get("text", ""), author)
            return
        if (self.said[name].kind, self.said[name].index) != (kind, index):
            raise CatalogError(f"explanation {name}: is of another card than {kind} {index}.")
        if act == "edit":
            self.said.edit(name, body.get("text", ""), author, str(body.get("revision")))
        elif act == "vote":
            self.said.vote(name, author, body.get("value", 0))
        elif act == "score":
            measured: Any = {field: body.get(field) for field in ("value", "n", "interval")}
            self.said.score(name, author, str(body.get("revision")), **measured, method="blind")
        else:
            raise CatalogError(f"act {act!r}: must be add, edit, vote or score.")

    def _shelf(self, request: Request) -> Shelf:
        kind = request.path_params["kind"]
        if kind not in self.catalog.shelves:
            raise HTTPException(404, f"no cards of kind {kind!r:.40}")
        return self.catalog.shelf(kind)

    def _index(self, request: Request) -> int:
        index, shelf = request.path_params["index"], self._shelf(request)
        if not _is_index(index) or int(index) >= len(shelf):
            raise HTTPException(404, f"no {shelf.kind} {index:.40}; there are {len(shelf)}")
        return int(index)


def _compressed(request: Request, packed: bytes, media_type: str) -> Response:
    """Send out what is held in zlib's format, which is what HTTP calls deflate, as it is to whoever takes it."""
    if "deflate" in request.headers.get("accept-encoding", ""):
        return Response(packed, media_type=media_type, headers={"Content-Encoding": "deflate"})
    return Response(zlib.decompress(packed), media_type=media_type)


def _is_index(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,12}", text) is not None


def _problem(status: int) -> Callable[[Request, Exception], Response]:
    return lambda _, error: JSONResponse({"error": str(error)}, status)


def _with_headers(app: ASGIApp) -> ASGIApp:
    """Put the security headers on every answer, also on errors."""
    extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in own)]
            await send(message)

        await app(scope, receive, send_with)

    return wrapped
