"""What a page can ask while the subject is loaded: questions by name, answered one at a time. Imports no torch.

    GET  /api/live          names of the questions, each with what a page has to know to put it
    POST /api/live/NAME     the question as JSON; the answer as JSON

What answers is handed in by whoever starts the server (see `features/live/asks.py`); without it there are no questions.
"""

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sae.errors import SaeError
from sae.server.requests import refuse_other_sites, small_json

MOST_QUESTION_BYTES = 64 * 1024 * 1024
"""A contrast may bring two sets of pictures."""


class Ask(Protocol):
    """Answers one kind of question.

    Attributes:
        about: what a page has to know to put it, as plain data.
    """

    @property
    def about(self) -> Mapping[str, Any]: ...

    def __call__(self, question: Mapping[str, Any], /) -> Any:
        """Return the answer as plain data.

        Raises:
            SaeError: the question cannot be answered; the message says why, and is shown to whoever asked.
        """
        ...


class LiveAnswers:
    """The questions' answers over HTTP."""

    def __init__(self, asks: Mapping[str, Ask]) -> None:
        self.asks = asks
        # A subject has one set of weights and hooks on them: who asks meanwhile waits.
        self._turn = threading.Lock()

    async def about(self, _: Request) -> Response:
        return JSONResponse({name: ask.about for name, ask in self.asks.items()})

    async def answer(self, request: Request) -> Response:
        refuse_other_sites(request)
        name = request.path_params["name"]
        if name not in self.asks:
            raise HTTPException(404, f"no question {name!r:.40}; sae serve CATALOG --live STORE loads the subject")
        question = await small_json(request, MOST_QUESTION_BYTES)
        try:
            return JSONResponse(await run_in_threadpool(self._answered, name, question))
        except SaeError as error:
            raise HTTPException(400, str(error)) from error

    def _answered(self, name: str, question: Mapping[str, Any]) -> Any:
        with self._turn:
            return self.asks[name](question)
