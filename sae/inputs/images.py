"""Images, with captions where there are some, as input of CLIP models."""

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae.config import encode
from sae.errors import InputsError, nearest
from sae.inputs.base import Classes
from sae.inputs.configs import ImageInputsConfig
from sae.inputs.image_sources import Picture, Source, open_folder, open_list, open_tars
from sae.inputs.image_tables import open_hub, open_parquet
from sae.tensors import Batch

logger = logging.getLogger(__name__)


class ImageInputs:
    """Frames of images and tokens of their captions, any range at random and the same each time.

    Args:
        config: where the images are.
        preprocess: makes a PIL image a frame, uint8 [3 height width]; the subject's.
        tokenize: makes captions tokens, attended and kind, each [example pos]; the subject's. Without it, or without
            captions in the config, batches hold images only.

    Raises:
        InputsError: nothing readable is there.
    """

    def __init__(
        self,
        config: ImageInputsConfig,
        preprocess: Callable[[Any], Tensor],
        tokenize: Callable[[Sequence[str]], tuple[Tensor, Tensor, Tensor]] | None = None,
    ):
        self._config, self._preprocess, self._tokenize = config, preprocess, tokenize
        self._source = _open(config)
        self._name = str(config.path or config.hub)
        total = len(self._source)
        n = min(config.n_examples or total, total)
        self._indices = [i * total // n for i in range(n)]
        self._threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self.unreadable: list[str] = self._drop_unreadable() if config.skip_unreadable else []
        self.fingerprint = self._fingerprint()

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._indices)

    def batch(self, start: int, stop: int) -> Batch:
        """Return examples start to stop.

        Raises:
            InputsError: examples beyond the last one, an image that cannot be decoded, or one that lacks the caption
                that the config promises.
        """
        if not 0 <= start <= stop <= len(self):
            raise InputsError(f"{self._name}: examples [{start}, {stop}) of {len(self)}.")
        made = list(self._threads.map(self._example, self._indices[start:stop]))
        images = torch.stack([frame for frame, _ in made])
        if self._tokenize is None or self._config.caption_column is None:
            return Batch(first_example=start, images=images)
        tokens, attended, kind = self._tokenize([caption for _, caption in made])
        return Batch(first_example=start, images=images, tokens=tokens, attended=attended, kind=kind)

    def describe(self) -> dict[str, Any]:
        """Return what a manifest records."""
        return encode(self._config) | {"n_unreadable": len(self.unreadable)}

    def references(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return how to find the images of examples start to stop again, and their captions."""
        pictures = (self._source.picture(index) for index in self._indices[start:stop])
        return [{**picture.reference, "caption": picture.caption} for picture in pictures]

    @cached_property
    def _class_of(self) -> list[str | None]:
        all_classes = self._source.classes()
        return [all_classes[index] for index in self._indices]

    bookkeeping = ()

    @cached_property
    def label_names(self) -> dict[str, list[str]]:
        """The names of the classes, sorted; empty where nothing is said of any image."""
        names = sorted({label for label in self._class_of if label is not None})
        return {"class": names} if names else {}

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the class of examples start to stop, int64 [example], -1 where nothing is said."""
        labels = {}
        for family, names in self.label_names.items():
            numbers: dict[str | None, int] = {name: number for number, name in enumerate(names)}
            labels[family] = np.array([numbers.get(name, -1) for name in self._class_of[start:stop]], dtype=np.int64)
        return labels

    @property
    def classes(self) -> Classes | None:
        """Plain prompts for a zero-shot classifier over the classes."""
        names = self.label_names.get("class")
        return Classes("class", [[f"a photo of a {name.replace('_', ' ')}."] for name in names]) if names else None

    def _fingerprint(self) -> str:
        """Return a sha256 over what the source says identifies it, and the selection."""
        digest = hashlib.sha256()
        for part in self._source.fingerprint_parts():
            digest.update(hashlib.sha256(part).digest())
        digest.update(json.dumps(self._indices).encode())
        return digest.hexdigest()

    def _example(self, index: int) -> tuple[Tensor, str]:
        picture = self._source.picture(index)
        if self._config.caption_column is not None and not picture.caption:
            raise InputsError(f"{self._where(picture)}: no caption in {self._config.caption_column!r}.")
        return self._preprocess(self._decode(picture)), picture.caption or ""

    def _decode(self, picture: Picture) -> Any:
        from PIL import Image

        try:
            image = Image.open(io.BytesIO(picture.data))
            image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            hint = "skip_unreadable: true leaves such images out"
            raise InputsError(f"{self._where(picture)}: not an image that can be decoded: {error} ({hint}).") from error
        return image

    def _drop_unreadable(self) -> list[str]:
        """Forget images that cannot be decoded; returns what is wrong with each."""
        problems = list(self._threads.map(self._problem, self._indices))
        self._indices = [i for i, problem in zip(self._indices, problems, strict=True) if problem is None]
        found = [problem for problem in problems if problem is not None]
        if found:
            logger.warning("%s: left out %d of %d images; first: %s", self._name, len(found), len(problems), found[0])
        if not self._indices:
            raise InputsError(f"{self._name}: none of {len(problems)} images can be decoded. First: {found[0]}")
        return found

    def _problem(self, index: int) -> str | None:
        try:
            self._decode(self._source.picture(index))
        except InputsError as error:
            return str(error)
        return None

    def _where(self, picture: Picture) -> str:
        return f"{self._name}: " + ", ".join(f"{key} {value}" for key, value in picture.reference.items())


def _open(config: ImageInputsConfig) -> Source:
    """Open what a config names; of a folder, what lies in it decides what it is."""
    if config.path is None:
        return open_hub(config)
    path = config.path.expanduser()
    if path.is_dir():
        for suffix, open_shards in ((".tar", open_tars), (".parquet", open_parquet)):
            if shards := sorted(path.glob(f"*{suffix}")):
                return open_shards(shards, config)
        return open_folder(path, config)
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputsError(f"{path}: no such file or folder.{nearest(path.name, siblings)}")
    openers = {".tar": open_tars, ".parquet": open_parquet, ".jsonl": open_list, ".csv": open_list}
    if path.suffix not in openers:
        raise InputsError(f"{path}: cannot read images from files of this kind.{nearest(path.suffix, openers)}")
    return openers[path.suffix]([path], config)
