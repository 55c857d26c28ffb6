"""A language model behind a chat endpoint as judge of explanations. Needs no torch."""

import http.client
import json
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from sae.errors import CatalogError

logger = logging.getLogger(__name__)

AT_ONCE = 5
"""Contexts in one question."""
TRIES = 4
MARKS = ("<<", ">>")
TASK = f"""\
A feature of a neural network responds to some places in text. Somebody has described what it responds to. You will be
given the description and numbered excerpts; in each, one token stands between {MARKS[0]} and {MARKS[1]}.

Decide for every excerpt, on its own, whether the description fits it at the marked token. An excerpt without a marked
token counts as a whole. Line ends and tabs are written as \\n and \\t. Any number of excerpts may fit, also none or all
of them, and a description may be wrong.

Answer with a JSON list of as many numbers as there are excerpts, in their order: 1 if it fits, 0 if not. For example:
[0, 1, 1, 0, 0]"""
AGAIN_AFTER = frozenset((408, 409, 425, 429, 500, 502, 503, 504))


class ChatJudge:
    """Asks a chat model whether a description fits texts, five at a time: the detection score.

    As in Paulo et al. 2024 (Automatically interpreting millions of features in large language models, arXiv
    2410.13928), with a prompt of our own that names the token in question.

    Args:
        endpoint: address of an OpenAI-compatible API, up to and without `/chat/completions`.
        model: its name there; also the judge's in the log.
        key: sent as bearer token, if there is one.
        timeout: seconds to wait for an answer.
        wait: seconds before the second of four tries; doubled for each further one.

    Raises:
        CatalogError: the endpoint is no http address, refuses, cannot be reached, or gives no usable answer.
    """

    def __init__(
        self, endpoint: str, model: str, key: str | None = None, timeout: float = 120.0, wait: float = 1.0
    ) -> None:
        if not re.match(r"https?://[^/\s]", endpoint):
            raise CatalogError(f"endpoint {endpoint!r}: must begin with http:// or https://.")
        self.name = model
        self._address = f"{endpoint.rstrip('/')}/chat/completions"
        self._key, self._timeout, self._wait = key, timeout, wait

    def __call__(self, text: str, contexts: Sequence[Mapping[str, Any]]) -> list[float]:
        """Return 1 for each context that the description fits, else 0."""
        parts = [contexts[first : first + AT_ONCE] for first in range(0, len(contexts), AT_ONCE)]
        return [answer for part in parts for answer in self._answers(text, part)]

    def _answers(self, text: str, contexts: Sequence[Mapping[str, Any]]) -> list[float]:
        excerpts = "\n".join(f"{number}. {excerpt(context)}" for number, context in enumerate(contexts, 1))
        question = f"Description: {text}\n\nExcerpts:\n{excerpts}"
        messages = [{"role": "system", "content": TASK}, {"role": "user", "content": question}]
        told = ""
        for number in range(TRIES):
            if number:
                logger.warning("%s: %s; trying again.", self._address, told)
                time.sleep(self._wait * 2 ** (number - 1))
            try:
                told = self._asked(messages)
            except _TryAgainError as cause:
                told = str(cause)
                continue
            found = read_answers(told, len(contexts))
            if found is not None:
                return found
            told = f"answered {told!r:.200}, which is no list of {len(contexts)} numbers 0 or 1"
        raise CatalogError(f"{self._address}: {told} (tried {TRIES} times).")

    def _asked(self, messages: Sequence[Mapping[str, str]]) -> str:
        body = json.dumps({"model": self.name, "messages": messages, "temperature": 0}).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(self._address, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                data = json.load(answer)
        except urllib.error.HTTPError as cause:
            told = f"HTTP {cause.code}: {cause.read(400).decode(errors='replace').strip()}"
            if cause.code in AGAIN_AFTER:
                raise _TryAgainError(told) from cause
            raise CatalogError(f"{self._address}: {told}") from cause
        except (OSError, http.client.HTTPException, ValueError) as cause:  # nobody there, cut off, too slow, or no JSON
            raise _TryAgainError(f"{cause}") from cause
        try:
            return str(data["choices"][0]["message"]["content"])
        except (KeyError, IndexError, TypeError) as cause:
            raise CatalogError(f"{self._address}: answered no chat completion, but {data!r:.200}.") from cause


class _TryAgainError(Exception):
    """What may go better the next time."""


def excerpt(context: Mapping[str, Any]) -> str:
    """Return a text in one line with the token in question marked.

    Raises:
        CatalogError: it is no text.
    """
    if "tokens" not in context:
        raise CatalogError(f"example {context['example']}: is no text; a chat endpoint is asked about text alone.")
    tokens = list(context["tokens"])
    if not context.get("whole"):
        place = context["position"] - context["start"]
        tokens[place] = f"{MARKS[0]}{tokens[place]}{MARKS[1]}"
    return "".join(tokens).replace("\n", "\\n").replace("\t", "\\t")


def read_answers(told: str, n: int) -> list[float] | None:
    """Return the last list of n numbers 0 or 1 in an answer, None where there is none."""
    for found in reversed(re.findall(r"\[[\s01,.]*\]", told)):
        numbers = re.findall(r"[01](?:\.0+)?", found)
        if len(numbers) == n:
            return [float(number) for number in numbers]
    return None
