"""What the laboratory found, and labellings, over HTTP. Imports no torch.

Findings are read when they are asked for (see `features/findings.py`), so a new one shows without a restart.

    GET  /api/lab                     all findings, without their rows
    GET  /api/lab/NAME                one, with its rows
    GET  /api/mentions/KIND/INDEX     what findings say of a card
    GET  /lab/NAME/IMAGE.png          its pictures and images
    GET  /api/label/NAME?rater=WHO    what is to be labelled, and what this rater has said
    POST /api/label/NAME              {"rater": "Ada", "slot": 3, "category": 0}
    GET  /lab/NAME/items/IMAGE.png    the picture of a slot
"""

from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sae.errors import CatalogError
from sae.features.catalog import KINDS, Catalog
from sae.features.findings import NAME, Findings
from sae.features.judging.labelling import FILE, ITEMS, Labelling
from sae.server.files import IMAGE_NAME
from sae.server.requests import refuse_other_sites, small_json

MOST_LABEL_BYTES = 4096


class LabPages:
    """The answers about a catalog's findings."""

    def __init__(self, catalog: Catalog) -> None:
        self.findings = Findings(catalog.path, catalog.about.dictionary.get("sha256", ""))
        self._labellings: dict[str, tuple[int, Labelling]] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/api/lab", self.listed),
            Route("/api/lab/{name}", self.finding),
            Route("/api/mentions/{kind}/{index}", self.mentions),
            Route("/api/label/{name}", self.labelling),
            Route("/api/label/{name}", self.label, methods=["POST"]),
            Route("/lab/{name}/{file}", self.image),
            Route("/lab/{name}/items/{file}", self.item),
        ]

    def listed(self, _: Request) -> Response:
        return JSONResponse(self.findings.listed())

    def finding(self, request: Request) -> Response:
        try:
            return JSONResponse(self.findings[request.path_params["name"]].to_json())
        except CatalogError as error:
            raise HTTPException(404, str(error)) from error

    def mentions(self, request: Request) -> Response:
        kind, index = request.path_params["kind"], request.path_params["index"]
        if kind not in KINDS or not (index.isascii() and index.isdecimal() and len(index) <= 12):
            raise HTTPException(404, f"no card {kind:.40} {index:.40}")
        return JSONResponse(self.findings.of(kind, int(index)))

    def image(self, request: Request) -> Response:
        return _png(self.findings.image(request.path_params["name"], request.path_params["file"]))

    def item(self, request: Request) -> Response:
        name, file = request.path_params["name"], request.path_params["file"]
        known = NAME.fullmatch(name) and IMAGE_NAME.fullmatch(file)
        return _png(self.findings.folder / name / ITEMS / file if known else None)

    def labelling(self, request: Request) -> Response:
        return JSONResponse(self._labelling(request).to_json(request.query_params.get("rater", "")))

    async def label(self, request: Request) -> Response:
        refuse_other_sites(request)
        labelling = await run_in_threadpool(self._labelling, request)
        body: Any = await small_json(request, MOST_LABEL_BYTES)
        try:
            await run_in_threadpool(labelling.label, body.get("rater"), body.get("slot"), body.get("category"))
        except CatalogError as error:
            raise HTTPException(400, str(error)) from error
        return JSONResponse({})

    def _labelling(self, request: Request) -> Labelling:
        name = request.path_params["name"]
        path = self.findings.folder / name / FILE
        if not NAME.fullmatch(name) or not path.is_file():
            raise HTTPException(404, f"no labelling {name!r:.60}; sae lab label --catalog prepares one")
        written = path.stat().st_mtime_ns
        if self._labellings.get(name, (0,))[0] != written:
            self._labellings[name] = written, Labelling(path.parent)
        return self._labellings[name][1]


def _png(path: Path | None) -> Response:
    if path is None or not path.is_file():
        raise HTTPException(404, "no such image")
    return Response(path.read_bytes(), media_type="image/png", headers={"Cache-Control": "no-cache"})
