"""Conversations through a tokenizer's chat template, with the role of every token."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sae.errors import InputsError
from sae.inputs.corpus import Encoded
from sae.inputs.documents import Piece
from sae.inputs.text import NO_ROLE, TextInputs
from sae.tensors import Kind

ROLES = ("system", "user", "assistant", "tool")
"""Values of the label family "role"; the template's own tokens have none."""

_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")

logger = logging.getLogger(__name__)


class ChatInputs(TextInputs):
    """Conversations as token windows, labelled by role.

    With `roles` in the config, tokens of other roles and of the template are marked `Kind.SPECIAL`.

    Raises:
        InputsError: a conversation that is not a list of {role, content}, or that the template refuses.
    """

    label_names: Mapping[str, Sequence[str]] = {"role": ROLES}
    bookkeeping = ()
    classes = None

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the role of every token, int8 [example pos], -1 for the template's tokens and padding."""
        return {"role": self._examples(self._corpus.roles, start, stop, NO_ROLE, NO_ROLE)}

    def _mark(self, kind: np.ndarray, start: int, stop: int) -> np.ndarray:
        if not self.config.roles:
            return kind
        chosen = [ROLES.index(role) for role in self.config.roles]
        other = ~np.isin(self.labels(start, stop)["role"], chosen) & (kind == Kind.TOKEN)
        return np.where(other, np.uint8(Kind.SPECIAL), kind)

    def _encode(self, pieces: tuple[Piece, ...]) -> Iterator[Encoded]:
        if not getattr(self.tokenizer, "chat_template", None):
            raise InputsError(f"{self._name}: format is chat, but the tokenizer has no chat template.")
        limit = None if self.config.packing == "packed" else self.config.context
        for piece in pieces:
            messages = _check(piece)
            text, roles = render(self.tokenizer, messages, piece.where)
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids, spans = encoded["input_ids"], encoded["offset_mapping"]
            if self._bos is not None and limit is not None and ids[:1] != [self._bos]:
                ids, spans = [self._bos, *ids], [(0, 0), *spans]
            of_token = [int(roles[begin]) if end > begin else NO_ROLE for begin, end in spans]
            yield Encoded(ids[:limit], of_token[:limit])


def render(tokenizer: Any, messages: list[dict[str, Any]], where: str = "conversation") -> tuple[str, np.ndarray]:
    """Return the text of a conversation and the role of each of its characters, int8.

    Most templates do not mark who speaks. So the conversation is also rendered with a placeholder for every content;
    what stands around the placeholders is the template's, and the rest is what was said. A template that changes what
    was said, beyond the white space around it, leaves the conversation without roles.
    """
    placeholders = [message | {"content": f"\ue000{i}\ue001"} for i, message in enumerate(messages)]
    # Templates raise what they like for orders and roles they do not accept; jinja2 names it TemplateError.
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        frame = _PLACEHOLDER.split(tokenizer.apply_chat_template(placeholders, tokenize=False))
    except TemplateError as error:
        raise InputsError(f"{where}: the chat template refuses this conversation: {error}") from error
    roles = np.full(len(text), NO_ROLE, dtype=np.int8)
    cursor = len(frame[0])
    matches = text.startswith(frame[0])
    for index, after in zip(map(int, frame[1::2]), frame[2::2], strict=True):
        content = messages[index]["content"]
        said = next((c for c in (content, content.strip()) if text.startswith(c + after, cursor)), None)
        if said is None:
            matches = False
            break
        roles[cursor : cursor + len(said)] = ROLES.index(messages[index]["role"])
        cursor += len(said) + len(after)
    if not matches or cursor != len(text):
        logger.warning("%s: the chat template changes what is said; its tokens get no role", where)
        roles[:] = NO_ROLE
    return text, roles


def _check(piece: Piece) -> list[dict[str, Any]]:
    messages = piece.content
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise InputsError(f"{piece.where}: expected a list of messages, got {type(messages).__name__}.")
    for message in messages:
        if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
            raise InputsError(f"{piece.where}: a message needs a role of {', '.join(ROLES)} and text as content.")
    return messages
