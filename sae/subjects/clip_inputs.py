"""What goes into CLIP's towers: frames of pixels, and tokens of which some are text and some padding."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sae.errors import SubjectError
from sae.tensors import Kind


class Frames:
    """Turns pictures into frames of `size` (height, width), uint8, and frames into what the image tower takes.

    `config` is open_clip's preprocessing config, and `transform` its evaluation transform, which ends in conversion to
    a float tensor and normalisation. Frames are what comes before these two, so that they can be stored and shown.
    """

    def __init__(self, config: Mapping[str, Any], transform: Any):
        size = config["size"]
        self.config = dict(config)
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else (size[0], size[1])
        self._shape_picture: list[Callable[[Any], Any]] = transform.transforms[:-2]

    def preprocess(self, image: Any) -> UInt8[Tensor, "3 height width"]:
        """Resize and crop a PIL image as the model's evaluation transform does."""
        from torchvision.transforms.functional import pil_to_tensor

        for step in self._shape_picture:
            image = step(image)
        return pil_to_tensor(image)

    def describe(self) -> dict[str, Any]:
        """Return the preprocessing config as plain JSON values."""
        return json.loads(json.dumps(self.config))

    def normalise(self, images: UInt8[Tensor, "example 3 height width"]) -> Float[Tensor, "example 3 height width"]:
        """Scale to 0..1 and standardise each channel, on the device that the frames are on; float32.

        Raises:
            SubjectError: the frames are not of the size that the model takes.
        """
        return self.standardise(images.float() / 255)

    def standardise(self, images: Float[Tensor, "example 3 height width"]) -> Float[Tensor, "example 3 height width"]:
        """Standardise each channel of frames in 0..1; gradients flow.

        Raises:
            SubjectError: the frames are not of the size that the model takes.
        """
        if tuple(images.shape[2:]) != self.size:
            raise SubjectError(
                f"images of {tuple(images.shape[2:])} pixels (height, width); the model takes {self.size}, "
                "which is what its `preprocess` makes"
            )
        mean, std = (torch.tensor(self.config[name], device=images.device).view(3, 1, 1) for name in ("mean", "std"))
        return (images - mean) / std


class TextMarks:
    """Says which tokens are text, from the special tokens of an open_clip tokenizer.

    Text ends with its first end-of-text token. Where there is none, because the tokenizer has no such token or cuts it
    off, everything but padding is text. The tokenizer of OpenAI's models pads with 0, which is also its "!".
    """

    def __init__(self, tokenizer: Any):
        inner = getattr(tokenizer, "tokenizer", None)  # that of Hugging Face, within open_clip's
        if inner is None:
            self.bos, self.eot, self.pad = tokenizer.sot_token_id, tokenizer.eot_token_id, None
        else:
            self.bos = inner.cls_token_id if inner.bos_token_id is None else inner.bos_token_id
            self.eot = inner.sep_token_id if inner.eos_token_id is None else inner.eos_token_id
            self.pad = inner.pad_token_id

    def mark(
        self, tokens: Int[Tensor, "example pos"]
    ) -> tuple[Bool[Tensor, "example pos"], UInt8[Tensor, "example pos"]]:
        """Return where the text is, and the `Kind` of every token (SPECIAL for padding)."""
        is_eot = _equal(tokens, self.eot)
        attended = is_eot.cumsum(1) - is_eot.int() == 0
        attended &= is_eot.any(1, keepdim=True) | ~_equal(tokens, self.pad)
        kind = torch.full(tokens.shape, Kind.TOKEN, dtype=torch.uint8, device=tokens.device)
        kind[_equal(tokens, self.bos)] = Kind.BOS
        kind[is_eot] = Kind.EOT
        kind[~attended] = Kind.SPECIAL
        return attended, kind

    def describe(self) -> dict[str, Any]:
        """Return the token policy for a manifest."""
        return {"bos": self.bos, "eot": self.eot, "pad": self.pad, "rows": "up to and including eot"}


def _equal(tokens: Tensor, token: int | None) -> Tensor:
    return torch.zeros_like(tokens, dtype=torch.bool) if token is None else tokens == token
