"""What every answer asks of its request: who may write, and how much."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request


def refuse_other_sites(request: Request) -> None:
    """Let only our own page write: a page of another site sends its own origin, and no page can forge it.

    Raises:
        HTTPException: the origin is missing or another one, or the body is of a type that a form could send.
    """
    headers = request.headers
    if (
        headers.get("origin") != f"http://{headers['host']}"
        or headers.get("sec-fetch-site", "same-origin") != "same-origin"
    ):
        raise HTTPException(403, "only this page may write")
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "must be application/json")


async def small_json(request: Request, most_bytes: int) -> dict[str, Any]:
    """Return the object that a request brings.

    Raises:
        HTTPException: it is no JSON object, or larger than allowed.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most_bytes:
            raise HTTPException(413, f"at most {most_bytes} bytes")
    try:
        data = json.loads(body)
    except ValueError as error:
        raise HTTPException(400, f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise HTTPException(400, "must be an object")
    return data
