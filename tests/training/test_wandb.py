"""An offline run on Weights & Biases, read back from the file that would be sent."""

import dataclasses
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae.activations.store import ActivationStore
from sae.training.config import TrainConfig
from sae.training.loop import train

wandb = pytest.importorskip("wandb")

FILE_HEADER_BYTES, BLOCK_BYTES = 7, 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def payloads(data: bytes) -> Iterator[bytes]:
    """Undo the framing of a LevelDB log: records cut into chunks that never cross a block."""
    assert data[:4] == b":W&B"
    position, record = FILE_HEADER_BYTES, b""
    while position + 7 <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (FULL, LAST):
            yield record
            record = b""


def read_run(folder: Path) -> list[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    records = []
    for payload in payloads(path.read_bytes()):
        records.append(Record())
        records[-1].ParseFromString(payload)
    return records


def history(records: list[Any]) -> list[dict[str, Any]]:
    """Return the logged rows, as plain data; the parts of a histogram are keyed by a dotted name."""
    rows = [record.history.item for record in records if record.WhichOneof("record_type") == "history"]
    return [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


@pytest.fixture
def records(store: ActivationStore, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(store, dataclasses.replace(config, wandb="offline"))
    wandb.teardown()  # the service may write the last records after the run has been closed
    return read_run(config.out)


def test_curves_config_histograms_and_the_dictionary_are_there(records: list[Any], config: TrainConfig) -> None:
    rows = history(records)
    written = [json.loads(line) for line in (config.out / "metrics.jsonl").read_text().splitlines()]
    curves = [{name: row[name] for name in ("step", "fvu", "loss", "lr")} for row in rows if "fvu" in row]
    assert curves == [{name: line[name] for name in ("step", "fvu", "loss", "lr")} for line in written]

    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
    sent = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert sent["config"]["dictionary"] == {
        "kind": "topk", "d_sae": 48, "k": 4, "auxk_coefficient": 1 / 32, "k_aux": None,
        "skip": False, "layer_norm": False,
    }  # fmt: skip
    assert sent["config"]["seed"] == 0

    histograms = [row["log10_firing_rate.values"] for row in rows if "log10_firing_rate.values" in row]
    assert len(histograms) == 20
    assert all(sum(histogram) == 48 for histogram in histograms)

    artifacts = [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
    (artifact,) = artifacts
    assert artifact.type == "dictionary"
    assert {entry.path for entry in artifact.manifest.contents} == {"dictionary.safetensors", "dictionary.json"}
    assert json.loads(artifact.metadata)["hookpoint"] == config.hookpoint
