"""Pictures in tables: .parquet files, and data sets of the Hugging Face hub."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae.errors import InputsError
from sae.inputs.configs import ImageInputsConfig
from sae.inputs.image_sources import Entry, Picture, check_columns, image_column

_TAIL_BYTES = 1 << 16


class Table:
    """Pictures in a `datasets.Dataset`, one per row; `identity` says which one it is."""

    def __init__(self, dataset: Any, where: str, config: ImageInputsConfig, identity: bytes):
        columns = dataset.column_names
        check_columns(columns, where, config.caption_column, config.class_column)
        self._image = image_column(columns, config, where)
        self._dataset = _encoded(dataset, self._image)
        self._where, self._config, self._identity = where, config, identity

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._dataset)

    def picture(self, index: int) -> Picture:
        """Read one row, whose image is bytes, a path, or both as `datasets` keeps them.

        Raises:
            InputsError: the row holds no image.
        """
        row = self._dataset[index]
        value = row[self._image]
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str) and Path(value).is_file():
            value = Path(value).read_bytes()
        if not isinstance(value, bytes):
            raise InputsError(f"{self._where}, row {index}: no image in column {self._image!r}.")
        return Picture({"row": index}, value, row.get(self._config.caption_column))

    def classes(self) -> list[str | None]:
        """Return the class of every row, by name where the data set names its classes."""
        column = self._config.class_column
        if column is None:
            return [None] * len(self)
        names = getattr(self._dataset.features[column], "names", None)
        return [None if value is None else names[value] if names else str(value) for value in self._dataset[column]]

    def fingerprint_parts(self) -> Iterator[bytes]:
        """Yield the identity, the number of rows, the columns read, and the first picture."""
        yield self._identity
        columns = [self._image, self._config.caption_column, self._config.class_column]
        yield json.dumps([len(self), columns]).encode()
        yield self.picture(0).data


def open_parquet(paths: Sequence[Path], config: ImageInputsConfig) -> Table:
    """Open .parquet files; known by their names, their sizes, and their ends, where the index is."""
    from datasets import load_dataset

    identity = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        identity.update(f"{path.name} {size}".encode() + Entry(path, {}, offset=max(0, size - _TAIL_BYTES)).read())
    files = [str(path) for path in paths]
    dataset = _made(str(paths[0]), lambda: load_dataset("parquet", data_files=files, split="train"))
    return Table(dataset, str(paths[0]), config, identity.digest())


def open_hub(config: ImageInputsConfig) -> Table:
    """Stream the first examples of a data set of the hub, once, into the cache of `datasets`, where any can be read."""
    from datasets import Dataset

    name = str(config.hub)
    settings = {"path": name, "name": config.subset, "split": config.split, "revision": config.revision}
    features = _made(name, lambda: _stream(settings, config).features)
    arguments = {"settings": settings, "config": config}
    dataset = _made(name, lambda: Dataset.from_generator(_examples, features=features, gen_kwargs=arguments))
    return Table(dataset, name, config, json.dumps([settings, config.n_examples]).encode())


def _stream(settings: dict[str, Any], config: ImageInputsConfig) -> Any:
    from datasets import load_dataset

    stream: Any = load_dataset(**settings, streaming=True)
    image = image_column(stream.column_names or [], config, settings["path"])
    return _encoded(stream, image).take(config.n_examples)


def _examples(settings: dict[str, Any], config: ImageInputsConfig) -> Iterator[dict[str, Any]]:
    yield from _stream(settings, config)


def _encoded(dataset: Any, image: str) -> Any:
    """Have a data set hand out images as the bytes they are kept in."""
    from datasets import Image

    is_image = isinstance((dataset.features or {}).get(image), Image)
    return dataset.cast_column(image, Image(decode=False)) if is_image else dataset


def _made(where: str, make: Callable[[], Any]) -> Any:
    from datasets.exceptions import DatasetGenerationError, DatasetsError

    try:
        return make()
    except (OSError, ValueError, DatasetsError, DatasetGenerationError) as error:
        raise InputsError(f"{where}: cannot be read as a data set: {error}") from error
