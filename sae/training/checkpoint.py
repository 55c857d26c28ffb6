"""A run's state on disk, whole or not at all.

```
FOLDER/step-000001000/tensors.safetensors   every tensor of the state
FOLDER/step-000001000/state.json            the rest of it; {"$tensor": name} stands where a tensor was
FOLDER/latest                               the name of the newest checkpoint
```
A checkpoint is written beside, synced and renamed, and only then named by `latest`, so a run killed at any moment
leaves the last one intact.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sae.durable import sync_folder, write_durably
from sae.errors import TrainingError

FORMAT_VERSION = 1
TENSOR = "$tensor"


class Checkpoints:
    """The checkpoints of one run; the newest and the one before it are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._pointer = self.folder / "latest"

    def latest(self) -> Path | None:
        """Return the newest checkpoint, or None where there is none."""
        return self.folder / self._pointer.read_text().strip() if self._pointer.is_file() else None

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write nested dicts and lists of tensors, numbers and strings, and remove what is no longer needed.

        The newest checkpoint is never written over: saving its step again does nothing.

        Raises:
            TrainingError: the folder cannot be written, or the disk is full.
        """
        final = self.folder / f"step-{step:09}"
        if self.latest() == final:
            return final
        try:
            self._write(final, state)
        except (OSError, SafetensorError, TrainingError) as error:
            raise TrainingError(
                f"{final}: the checkpoint cannot be written: {error}. The last good one is {self.latest()}."
            ) from error
        return final

    def load(self) -> dict[str, Any]:
        """Read the newest checkpoint, on the CPU.

        Raises:
            TrainingError: there is none, or it is damaged or of another format.
        """
        newest = self.latest()
        if newest is None:
            raise TrainingError(f"{self.folder}: no checkpoint to resume from. Start without --resume.")
        try:
            document = json.loads((newest / "state.json").read_text(encoding="utf-8"))
            tensors = load_file(newest / "tensors.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            others = sorted(path.name for path in self.folder.glob("step-*") if path != newest)
            raise TrainingError(
                f"{newest}: the checkpoint cannot be read: {error}. Others there: {', '.join(others) or 'none'}; "
                f"write the name of one into {self._pointer} to go on from there."
            ) from error
        if document.get("format_version") != FORMAT_VERSION:
            found = document.get("format_version")
            raise TrainingError(f"{newest}: format version {found!r} found, {FORMAT_VERSION} can be read.")
        return _unpack(document["state"], tensors)

    def _write(self, final: Path, state: dict[str, Any]) -> None:
        before = self.latest()
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob("*.partial"):
            shutil.rmtree(leftover)
        partial = final.with_suffix(".partial")
        partial.mkdir()
        tensors: dict[str, torch.Tensor] = {}
        document = {"format_version": FORMAT_VERSION, "state": _pack(state, "", tensors)}
        save_file(tensors, partial / "tensors.safetensors")
        with (partial / "tensors.safetensors").open("rb") as file:
            os.fsync(file.fileno())
        write_durably(partial / "state.json", [json.dumps(document, indent=1).encode()], TrainingError)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        sync_folder(self.folder)
        write_durably(self._pointer, [f"{final.name}\n".encode()], TrainingError)
        for old in set(self.folder.glob("step-*")) - {final, before}:
            shutil.rmtree(old)


def _pack(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Move tensors into `tensors`, under their path; keys that are not strings survive as pairs."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().contiguous().to("cpu", copy=True)
        return {TENSOR: path}
    if isinstance(value, dict):
        return {"$items": [[key, _pack(item, f"{path}.{key}".lstrip("."), tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]
    return value


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict) and TENSOR in value:
        return tensors[value[TENSOR]]
    if isinstance(value, dict):
        return {key: _unpack(item, tensors) for key, item in value["$items"]}
    return [_unpack(item, tensors) for item in value] if isinstance(value, list) else value
