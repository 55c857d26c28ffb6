"""Images, with captions where there are some, as input of CLIP models."""

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from sae.errors import ConfigError, InputsError
from sae.inputs.base import Classes
from sae.inputs.image_sources import Picture, Source, Table, open_folder, open_jsonl, open_webdataset
from sae.tensors import Batch

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImageInputsConfig:
    """Images from a folder, a list, an archive or the hub."""

    kind: ClassVar[str] = "images"

    path: str
    """A folder of images, a .jsonl or .csv, a .parquet, a webdataset .tar or folder of them, or a name on the hub."""
    format: Literal["folder", "jsonl", "parquet", "webdataset", "hub"] = "folder"
    """What `path` is."""
    captions: str | None = None
    """The column of captions; for a folder a .jsonl or .csv in it with file_name and text; any word for .txt in tars."""
    labels: str | None = None
    """The column of classes; in a folder its subfolders are the classes, in tars the .cls members."""
    split: str = "train"
    """Which split of a hub dataset."""
    n_examples: int | None = None
    """How many images, taken at even distances; null takes all."""
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded and say how many; all are decoded once in advance to find them."""

    def __post_init__(self) -> None:
        if self.n_examples is not None and self.n_examples < 1:
            raise ConfigError(f"n_examples: must be at least 1 or null, got {self.n_examples}.")
        if self.labels is not None and self.format in ("folder", "webdataset"):
            raise ConfigError(f"labels: format {self.format} has no columns; its classes need no setting.")


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
        total = len(self._source)
        n = min(config.n_examples or total, total)
        self._indices = [i * total // n for i in range(n)]
        self._threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self.unreadable: list[str] = self._drop_unreadable() if config.skip_unreadable else []

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._indices)

    def batch(self, start: int, stop: int) -> Batch:
        """Return examples start to stop.

        Raises:
            InputsError: an image cannot be decoded, or lacks the caption that the config promises.
        """
        made = list(self._threads.map(self._example, self._indices[start:stop]))
        images = torch.stack([frame for frame, _ in made])
        if self._tokenize is None or self._config.captions is None:
            return Batch(first_example=start, images=images)
        tokens, attended, kind = self._tokenize([caption for _, caption in made])
        return Batch(first_example=start, images=images, tokens=tokens, attended=attended, kind=kind)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the chosen source (`image_sources` says what of it), captions and selection."""
        digest = hashlib.sha256()
        for part in self._source.fingerprint_parts():
            digest.update(hashlib.sha256(part).digest())
        digest.update(json.dumps([self._indices, self._config.captions, self._config.split]).encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return what a manifest records."""
        return {"kind": self._config.kind, **asdict(self._config), "n_unreadable": len(self.unreadable)}

    def references(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return how to find the images of examples start to stop again, and their captions."""
        pictures = (self._source.picture(index) for index in self._indices[start:stop])
        return [{**picture.reference, "caption": picture.caption} for picture in pictures]

    @cached_property
    def _class_of(self) -> list[str | None]:
        all_classes = self._source.classes()
        return [all_classes[index] for index in self._indices]

    @cached_property
    def label_names(self) -> dict[str, list[str]]:
        """The names of the classes, sorted; empty where nothing is said of any image."""
        names = sorted({label for label in self._class_of if label is not None})
        return {"class": names} if names else {}

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the class of examples start to stop, int64 [example], -1 where nothing is said."""
        return {
            family: np.array([names.index(c) if c is not None else -1 for c in self._class_of[start:stop]], np.int64)
            for family, names in self.label_names.items()
        }

    @property
    def classes(self) -> Classes | None:
        """Plain prompts for a zero-shot classifier over the classes."""
        names = self.label_names.get("class")
        return Classes("class", [[f"a photo of a {name.replace('_', ' ')}."] for name in names]) if names else None

    def _example(self, index: int) -> tuple[Tensor, str]:
        picture = self._source.picture(index)
        if self._config.captions is not None and not picture.caption:
            raise InputsError(f"{self._where(picture)}: no caption in {self._config.captions!r}.")
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
            _log.warning(
                "%s: left out %d of %d images; first: %s", self._config.path, len(found), len(problems), found[0]
            )
        if not self._indices:
            raise InputsError(f"{self._config.path}: none of {len(problems)} images can be decoded. First: {found[0]}")
        return found

    def _problem(self, index: int) -> str | None:
        try:
            self._decode(self._source.picture(index))
        except InputsError as error:
            return str(error)
        return None

    def _where(self, picture: Picture) -> str:
        return f"{self._config.path}: " + ", ".join(f"{key} {value}" for key, value in picture.reference.items())


def _open(config: ImageInputsConfig) -> Source:
    path = Path(config.path).expanduser()
    if config.format == "hub":
        return _open_table(config, config.path, split=config.split)
    if not path.exists():
        raise InputsError(f"{config.path}: no such file or folder (format: {config.format}).")
    if config.format == "parquet":
        files = sorted(map(str, path.glob("*.parquet"))) if path.is_dir() else [str(path)]
        return _open_table(config, "parquet", data_files=files, split="train")
    if config.format == "jsonl":
        return open_jsonl(path, config.captions, config.labels)
    if config.format == "webdataset":
        return open_webdataset(path, with_captions=config.captions is not None)
    return open_folder(path, config.captions)


def _open_table(config: ImageInputsConfig, name: str, **arguments: Any) -> Table:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        dataset = load_dataset(name, **arguments)
    except (OSError, ValueError, DatasetsError) as error:
        raise InputsError(f"{config.path}: cannot be read as a dataset: {error}") from error
    return Table(dataset, config.path, config.captions, config.labels)
