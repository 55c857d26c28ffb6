"""Texts and pictures that somebody brings, as batches of the subject: prepared as its inputs are, and checked first."""

import base64
import binascii
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from sae.errors import InputsError
from sae.inputs.base import Inputs
from sae.subjects.base import Subject
from sae.tensors import Batch, Kind

MOST_CHARACTERS = 50_000
"""Of one text; a text is refused before it is tokenized."""
MOST_TOKENS = 4096
"""Of one text, for subjects whose own context is longer."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MOST_IMAGE_BYTES = 20 << 20
MOST_SIDE, MOST_PIXELS = 16_384, 50_000_000
MOST_STRETCH = 20
"""How many times longer than wide a picture may be: its shorter side is scaled to the frame."""
BATCH_TEXTS, BATCH_IMAGES = 16, 32


class Texts:
    """Turns texts into batches as the inputs of a subject are made.

    With CLIP that is the text tower's own way. A causal model gets its BOS if its inputs begin with one, an encoder the
    special tokens of its tokenizer.
    """

    def __init__(self, subject: Subject, inputs: Inputs) -> None:
        self._subject: Any = subject
        self._inputs = inputs

    def batch(self, texts: Sequence[str]) -> Batch:
        """Return texts side by side, padded on the right.

        Raises:
            InputsError: a text is empty or too long.
        """
        for text in texts:
            _check_text(text)
        if self._subject.kind == "clip":
            return self._of_tower(texts)
        ids = [self._ids(text) for text in texts]
        longest = max(map(len, ids))
        tokens = torch.zeros(len(ids), longest, dtype=torch.int64)
        attended = torch.zeros(len(ids), longest, dtype=torch.bool)
        for row, one in enumerate(ids):
            tokens[row, : len(one)] = torch.tensor(one)
            attended[row, : len(one)] = True
        return Batch(first_example=0, tokens=tokens, attended=attended, kind=self._kinds(tokens, attended))

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        """Yield texts a few at a time."""
        for start in range(0, len(texts), BATCH_TEXTS):
            yield self.batch(texts[start : start + BATCH_TEXTS])

    def _ids(self, text: str) -> list[int]:
        tokenizer = self._subject.tokenizer
        if not self._subject.causal:
            ids = tokenizer([text], verbose=False)["input_ids"][0]
        else:
            ids = tokenizer([text], add_special_tokens=False, verbose=False)["input_ids"][0]
            ids = ([tokenizer.bos_token_id] if self._begins_with_bos else []) + ids
        if len(ids) > MOST_TOKENS:
            raise InputsError(f"the text has {len(ids):,} tokens; at most {MOST_TOKENS:,} are taken.")
        return ids

    @cached_property
    def _begins_with_bos(self) -> bool:
        kind = self._inputs.batch(0, 1).kind
        return kind is not None and int(kind[0, 0]) == Kind.BOS

    def _kinds(self, tokens: Tensor, attended: Tensor) -> UInt8[Tensor, "example pos"]:
        tokenizer = self._subject.tokenizer
        kind = torch.full(tokens.shape, Kind.TOKEN, dtype=torch.uint8)
        special = torch.tensor(tokenizer.all_special_ids, dtype=tokens.dtype)
        kind[torch.isin(tokens, special) | ~attended] = Kind.SPECIAL
        if tokenizer.bos_token_id is not None:
            kind[:, 0][tokens[:, 0] == tokenizer.bos_token_id] = Kind.BOS
        return kind

    def _of_tower(self, texts: Sequence[str]) -> Batch:
        tokens, attended, kind = self._subject.tokenize(list(texts))
        context = tokens.shape[1]
        # The tower's tokenizer cuts what is too long and says nothing: with room for one more it shows.
        longer = self._subject.tokenizer(list(texts), context_length=context + 1)
        cut = (longer[:, :context] != tokens).any(1).tolist()
        if any(cut):
            raise InputsError(
                f"the text {texts[cut.index(True)]!r:.60} is longer than the {context} tokens the tower takes."
            )
        return Batch(first_example=0, tokens=tokens, attended=attended, kind=kind)


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise InputsError(f"a text must be a string, not {type(text).__name__}.")
    if not text.strip():
        raise InputsError("the text is empty.")
    if len(text) > MOST_CHARACTERS:
        raise InputsError(f"the text has {len(text):,} characters; at most {MOST_CHARACTERS:,} are taken.")
    if any("\ud800" <= one <= "\udfff" for one in text):
        raise InputsError("the text holds half of a character (a lone surrogate).")


def frame_of(data: str | bytes, subject: Any) -> UInt8[Tensor, "3 height width"]:
    """Return a picture as the subject sees it, before normalisation.

    Args:
        data: the bytes of a picture's file, or their base64.
        subject: with an image tower.

    Raises:
        InputsError: it is no picture of `FORMATS`, or too large.
    """
    from PIL import Image, UnidentifiedImageError

    content = data if isinstance(data, bytes) else _decode64(data)
    allowed = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    if len(content) > MOST_IMAGE_BYTES:
        raise InputsError(f"the picture has {len(content):,} bytes; at most {MOST_IMAGE_BYTES:,} are taken.")
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        _check_size(*picture.size)
        picture.load()
        return subject.preprocess(picture)
    except UnidentifiedImageError as cause:
        raise InputsError(f"this is no picture that can be read; it must be {allowed}.") from cause
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise InputsError(f"the picture is too large: {cause}") from cause
    except (OSError, SyntaxError, ValueError) as cause:
        raise InputsError(f"the picture is damaged ({cause}); it must be {allowed}.") from cause


def frame_at(path: Path, subject: Any) -> UInt8[Tensor, "3 height width"]:
    """Return the picture in a file as the subject sees it, before normalisation.

    Raises:
        InputsError: there is no such file, or it is no picture of `FORMATS`, or too large.
    """
    try:
        return frame_of(path.read_bytes(), subject)
    except OSError as cause:
        raise InputsError(f"picture: {path} cannot be read: {cause.strerror}.") from cause
    except InputsError as cause:
        raise InputsError(f"picture: {path}: {cause}") from cause


def _check_size(width: int, height: int) -> None:
    """Refuse by what the header says, before a pixel is decoded."""
    if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS:
        raise InputsError(
            f"the picture is {width:,} by {height:,} pixels; at most {MOST_SIDE:,} on a side and "
            f"{MOST_PIXELS:,} altogether are taken."
        )
    if max(width, height) > MOST_STRETCH * min(width, height):
        raise InputsError(f"the picture is {width:,} by {height:,} pixels: more than {MOST_STRETCH} times as long.")


def _decode64(data: Any) -> bytes:
    if not isinstance(data, str):
        raise InputsError(f"a picture must be base64 in a string, not {type(data).__name__}.")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise InputsError(f"the picture is not base64: {cause}.") from cause


def image_batches(frames: Sequence[Tensor]) -> Iterator[Batch]:
    """Yield frames a few at a time."""
    for start in range(0, len(frames), BATCH_IMAGES):
        yield Batch(first_example=0, images=torch.stack(list(frames[start : start + BATCH_IMAGES])))


def png(frame: UInt8[Tensor, "3 height width"]) -> bytes:
    """Return a frame as the bytes of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame.permute(1, 2, 0).contiguous().cpu().numpy()).save(file, format="png")
    return file.getvalue()


def field(question: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """Return one field of a question.

    Raises:
        InputsError: it is missing, or of another type.
    """
    value = question.get(name, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputsError(f"{name}: must be {kind.__name__}, got {type(value).__name__}.")
    return value
