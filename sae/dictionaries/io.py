"""Dictionary files: `dictionary.safetensors` with the tensors, `dictionary.json` with everything else.

`load_dictionary` also reads what other libraries write; see `sae.dictionaries.formats`.

The JSON holds the format version, the width of the vectors, the config with its kind, the provenance (subject,
hookpoint, store hash, seed, what normalisation was folded, vectors trained on, metrics: whatever the writer gives)
and the sha256 over config and tensors. It is renamed into place last, so a folder with matching files is complete.
"""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sae import builtin
from sae import config as configs
from sae.dictionaries import hub, registry
from sae.dictionaries.base import Dictionary
from sae.dictionaries.formats import registry as formats
from sae.dictionaries.formats.files import read_safetensors
from sae.durable import write_durably
from sae.errors import ConfigError, DictionaryError, nearest

FORMAT = 1
OURS = "sae"
"""Name of this format among those of other libraries."""
TENSORS_FILE = "dictionary.safetensors"
CONFIG_FILE = "dictionary.json"


def save_dictionary(
    dictionary: Dictionary, folder: Path | str, provenance: Mapping[str, Any] | None = None, *, compact: bool = False
) -> None:
    """Write a dictionary into a folder, replacing the one that may be there. Each file appears whole or not at all.

    Args:
        dictionary: what to write.
        folder: where; created if it is not there.
        provenance: added to the dictionary's own.
        compact: round both matrices to bfloat16, which halves the file. Vectors and thresholds keep their precision,
            and the loaded dictionary computes in theirs.

    Raises:
        DictionaryError: the provenance cannot be written as JSON, or the folder cannot be written.
    """
    folder, provenance = Path(folder), dictionary.provenance | dict(provenance or {})
    written = _rounded(dictionary) if compact else dictionary
    description = {
        "format": FORMAT,
        "d_in": dictionary.d_in,
        "d_out": dictionary.d_out if dictionary.is_transcoder else None,
        "config": configs.encode(dictionary.config),
        "provenance": provenance,
        "sha256": written.hash,
    }
    try:
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DictionaryError(f"{folder}: the provenance does not fit into JSON: {error}.") from error
    tensors = {name: tensor.cpu().contiguous() for name, tensor in written.tensors().items()}
    if compact:
        tensors = {name: tensor.bfloat16() if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    write_durably(folder / TENSORS_FILE, [save(tensors)], DictionaryError)
    write_durably(folder / CONFIG_FILE, [text.encode()], DictionaryError)
    dictionary.provenance = provenance


def load_dictionary(source: Path | str, device: torch.device | str = "cpu", **hints: Any) -> Dictionary:
    """Read a dictionary, ours or one that another library saved.

    Args:
        source: its folder; its `builtin:` name; `hub:OWNER/NAME[@REVISION][/FOLDER]` on the Hugging Face hub; or, of
            the libraries that save a single pickle, that file.
        device: where to put it.
        hints: what the file of another library does not say, such as `kind` and `k` of a bare state dict, or the
            `scale` of the inputs that it was trained on. An error asks for what is needed.

    Raises:
        ConfigError: no built-in dictionary has that name.
        DictionaryError: a file is missing or damaged, of another format version or an unknown kind, or holds other
            tensors than its config says; or no known library wrote it.
    """
    folder = dictionary_folder(source)
    if not (folder / CONFIG_FILE).exists() and folder.exists():
        return formats.read(folder, hints).to(device).eval()
    for hint in hints:
        raise DictionaryError(f"{folder}: a dictionary of ours says all there is to say; {hint!r} has no meaning.")
    description = _read_description(folder / CONFIG_FILE)
    try:
        config = registry.decode_config(description["config"], where="config")
    except ConfigError as error:
        raise DictionaryError(f"{folder / CONFIG_FILE}: {error}") from error
    dictionary = registry.make_dictionary(config, description["d_in"], description.get("d_out"))
    dictionary.provenance = description["provenance"]
    _fill(dictionary, read_safetensors(folder / TENSORS_FILE), folder / TENSORS_FILE)
    found, written = dictionary.hash, description["sha256"]
    if found != written:
        raise DictionaryError(
            f"{folder}: the content has sha256 {found}, but {CONFIG_FILE} says {written}; the files are damaged, or "
            "do not belong together."
        )
    return dictionary.to(device).eval()


def export_dictionary(dictionary: Dictionary, folder: Path | str, form: str) -> None:
    """Write a dictionary into a folder in the format of another library, or as "sae" in ours.

    Raises:
        DictionaryError: we do not write that format, or it cannot hold this dictionary.
    """
    writer(form)(dictionary, Path(folder))


def writer(form: str) -> Callable[[Dictionary, Path], None]:
    """Return what writes a format.

    Raises:
        DictionaryError: we do not write it.
    """
    writers = {**formats.WRITERS, OURS: save_dictionary}
    if form not in writers:
        raise DictionaryError(f"cannot write the format {form!r}.{nearest(form, writers)}")
    return writers[form]


def dictionary_folder(source: Path | str) -> Path:
    """Return the folder, or the one file, that a path, a `builtin:` or a `hub:` name stands for; a path need not exist.

    Raises:
        ConfigError: no built-in dictionary has that name.
        DictionaryError: it cannot be fetched from the hub.
    """
    source = str(source)
    if source.startswith(hub.PREFIX):
        return hub.download(source)
    return builtin.dictionary_folder(source) if source.startswith(builtin.PREFIX) else Path(source)


def _rounded(dictionary: Dictionary) -> Dictionary:
    """Return a copy whose matrices hold only what bfloat16 can."""
    rounded = copy.deepcopy(dictionary)
    for tensor in rounded.tensors().values():
        if tensor.ndim == 2:
            tensor.copy_(tensor.bfloat16())
    return rounded


def _read_description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DictionaryError(f"{path}: no such file. A dictionary is a folder with {CONFIG_FILE} and {TENSORS_FILE}.")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DictionaryError(f"{path}: not valid JSON: {error}.") from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise DictionaryError(f"{path}: format version {found!r}; this version reads {FORMAT}.")
    for key, expected in {"d_in": int, "config": dict, "provenance": dict, "sha256": str}.items():
        if not isinstance(description.get(key), expected):
            found = repr(description[key]) if key in description else "nothing"
            raise DictionaryError(f"{path}: {key} should be of type {expected.__name__}; found {found}.")
    return description


def _fill(dictionary: Dictionary, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy tensors into a dictionary, which takes the dtype of the vectors; compact matrices are widened to it."""
    expected = dictionary.tensors()
    for name in expected.keys() ^ tensors.keys():
        state = "missing" if name in expected else "not part of this kind of dictionary"
        raise DictionaryError(f"{path}: tensor {name} is {state}.{nearest(name, sorted(expected))}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise DictionaryError(
                f"{path}: {name} has shape {list(tensor.shape)}; the config says {list(expected[name].shape)}."
            )
    dictionary.to(tensors["b_dec"].dtype)
    for name, tensor in dictionary.tensors().items():
        tensor.copy_(tensors[name])
