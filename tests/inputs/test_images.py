import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sae.activations.examples import Referencing
from sae.errors import InputsError
from sae.inputs.base import Labelled
from sae.inputs.images import ImageInputs
from sae.inputs.source import ImageInputsConfig, open_inputs

COLOURS = {"cat/a.png": (200, 10, 20), "cat/b.png": (10, 200, 20), "dog/a.png": (10, 20, 200), "top.png": (9, 9, 9)}
CAPTIONS = {name: f"number {number}" for number, name in enumerate(COLOURS)}
IN_A_FOLDER = ["dog/a.png", "cat/b.png", "top.png", "cat/a.png"]
"""A folder's order: their SHA-256 begin with 16, 85, 9d and b6."""


def preprocess(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB").resize((4, 4)))).permute(2, 0, 1)


def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.tensor([[int(text.split()[1]), 7] for text in texts])
    return tokens, torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(tokens, dtype=torch.uint8)


def encoded(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 8), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def write_folder(folder: Path) -> Path:
    for name, colour in COLOURS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(colour))
    return folder


def write_jsonl(folder: Path) -> Path:
    write_folder(folder)
    rows = [{"path": name, "says": CAPTIONS[name], "what": Path(name).parent.name} for name in COLOURS]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    return folder / "list.jsonl"


def write_tar(folder: Path) -> Path:
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, (name, colour) in enumerate(COLOURS.items()):
            texts = {"says": CAPTIONS[name].encode(), "what": Path(name).parent.name.encode()}
            for suffix, data in {"png": encoded(colour), **texts}.items():
                member = tarfile.TarInfo(f"./v1.0/{number:04d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return folder / "0.tar"


def write_parquet(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "image": [{"bytes": encoded(colour), "path": None} for colour in COLOURS.values()],
        "says": list(CAPTIONS.values()),
        "what": [Path(name).parent.name for name in COLOURS],
    }
    pq.write_table(pa.table(columns), folder / "part.parquet")
    return folder / "part.parquet"


WRITERS = {"jsonl": write_jsonl, "webdataset": write_tar, "parquet": write_parquet}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def pixels(inputs: ImageInputs, start: int = 0, stop: int | None = None) -> list[tuple[int, ...]]:
    images = inputs.batch(start, len(inputs) if stop is None else stop).images
    return [tuple(image[:, 0, 0].tolist()) for image in images]


def test_folder_order_and_classes(tmp_path):
    inputs = ImageInputs(ImageInputsConfig(path=write_folder(tmp_path)), preprocess)
    assert pixels(inputs) == [COLOURS[name] for name in IN_A_FOLDER]
    assert inputs.batch(1, 3).tokens is None and inputs.batch(1, 3).first_example == 1
    assert pixels(inputs, 1, 3) == [COLOURS[name] for name in IN_A_FOLDER[1:3]]
    assert inputs.label_names == {"class": ["cat", "dog"]}
    assert inputs.labels(0, 4)["class"].tolist() == [1, 0, -1, 0]
    assert inputs.classes is not None and inputs.classes.prompts == [["a photo of a cat."], ["a photo of a dog."]]
    assert inputs.references(2, 3) == [{"path": "top.png", "caption": None}]


def test_the_first_images_of_a_folder_are_a_fair_sample(tmp_path):
    """Classes have the shares that draws without replacement give, within four standard deviations."""
    names = [f"{kind}/{number}.png" for kind in "abcdefghij" for number in range(40)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    inputs = ImageInputs(ImageInputsConfig(path=tmp_path), preprocess)
    of = inputs.labels(0, 400)["class"]
    for n in range(30, 371):
        deviation = np.sqrt(n * 0.1 * 0.9 * (400 - n) / 399)
        assert np.abs(np.bincount(of[:n], minlength=10) - n / 10).max() <= 4 * deviation
    before = [reference["path"] for reference in inputs.references(0, 400)]
    assert sorted(before) == sorted(names)
    (tmp_path / "a/7.png").unlink()
    after = ImageInputs(ImageInputsConfig(path=tmp_path), preprocess)
    assert [one["path"] for one in after.references(0, 399)] == [name for name in before if name != "a/7.png"]
    assert after.fingerprint != inputs.fingerprint


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_folder_captions(tmp_path, name):
    write_folder(tmp_path)
    if name.endswith("csv"):
        text = "file_name,text\n" + "".join(f'{file},"{caption}"\n' for file, caption in CAPTIONS.items())
    else:
        text = "".join(json.dumps({"file_name": f, "text": c}) + "\n" for f, c in reversed(CAPTIONS.items()))
    (tmp_path / name).write_text(text, encoding="utf-8")
    inputs = ImageInputs(ImageInputsConfig(path=tmp_path, caption_column="text"), preprocess, tokenize)
    assert inputs.batch(0, 4).tokens.tolist() == [[2, 7], [1, 7], [3, 7], [0, 7]]
    assert inputs.references(2, 3) == [{"path": "top.png", "caption": "number 3"}]


@pytest.mark.parametrize("kind", list(WRITERS))
def test_formats_agree(tmp_path, kind):
    path = WRITERS[kind](tmp_path)
    config = ImageInputsConfig(path=path, caption_column="says", class_column="what")
    inputs = ImageInputs(config, preprocess, tokenize)
    assert pixels(inputs) == list(COLOURS.values())
    assert inputs.batch(1, 4).tokens[:, 0].tolist() == [1, 2, 3]
    names = inputs.label_names["class"]
    assert [names[label] for label in inputs.labels(0, 4)["class"]] == ["cat", "cat", "dog", ""]
    assert ImageInputs(config, preprocess, tokenize).fingerprint == inputs.fingerprint
    without = ImageInputs(ImageInputsConfig(path=path), preprocess, tokenize)
    assert without.batch(0, 4).tokens is None and without.fingerprint != inputs.fingerprint


def test_fingerprint_follows_content_not_place_or_time(tmp_path):
    folder = write_folder(tmp_path / "one")
    before = ImageInputs(ImageInputsConfig(path=folder), preprocess).fingerprint
    moved = Path(shutil.copytree(folder, tmp_path / "two"))
    assert ImageInputs(ImageInputsConfig(path=moved), preprocess).fingerprint == before
    (moved / "top.png").write_bytes(encoded((1, 2, 3)))
    assert ImageInputs(ImageInputsConfig(path=moved), preprocess).fingerprint != before
    fewer = ImageInputs(ImageInputsConfig(path=folder, n_examples=3), preprocess)
    assert fewer.fingerprint != before


def test_n_examples_are_spread(tmp_path):
    inputs = ImageInputs(ImageInputsConfig(path=write_folder(tmp_path), n_examples=2), preprocess)
    assert [r["path"] for r in inputs.references(0, 2)] == ["dog/a.png", "top.png"]
    assert len(ImageInputs(ImageInputsConfig(path=tmp_path, n_examples=99), preprocess)) == 4


def test_unreadable_image_is_named_or_left_out(tmp_path, caplog):
    write_folder(tmp_path)
    (tmp_path / "cat/b.png").write_bytes(encoded((1, 1, 1))[:-30])
    inputs = ImageInputs(ImageInputsConfig(path=tmp_path), preprocess)
    with pytest.raises(InputsError, match=r"cat/b\.png.*skip_unreadable"):
        inputs.batch(0, 4)
    skipping = ImageInputs(ImageInputsConfig(path=tmp_path, skip_unreadable=True), preprocess)
    assert pixels(skipping) == [COLOURS["dog/a.png"], COLOURS["top.png"], COLOURS["cat/a.png"]]
    assert skipping.describe()["n_unreadable"] == 1 and "left out 1 of 4" in caplog.text
    assert skipping.labels(0, 3)["class"].tolist() == [1, -1, 0]


def test_none_readable(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(InputsError, match="none of 1"):
        ImageInputs(ImageInputsConfig(path=tmp_path, skip_unreadable=True), preprocess)


def test_missing_caption_and_file_are_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "dog/a.png", "text": "number 2"}))
    inputs = ImageInputs(ImageInputsConfig(path=tmp_path, caption_column="text"), preprocess, tokenize)
    assert len(inputs.batch(0, 1)) == 1
    with pytest.raises(InputsError, match=r"cat/b\.png: no caption"):
        inputs.batch(0, 2)
    (tmp_path / "list.jsonl").write_text(json.dumps({"image": "gone.png"}))
    with pytest.raises(InputsError, match=r"gone\.png"):
        ImageInputs(ImageInputsConfig(path=tmp_path / "list.jsonl"), preprocess).batch(0, 1)


@pytest.mark.parametrize(
    ("name", "text", "settings", "message"),
    [
        ("l.jsonl", '{"picture": "a.png"}', {}, "no image column"),
        ("l.jsonl", '{"path": "a.png"}', {"image_column": "paths"}, "Did you mean 'path'"),
        ("l.jsonl", "not json", {}, "cannot be read as rows"),
        ("l.jsonl", "[1]", {}, "not a JSON object"),
        ("l.jsonl", '{"path": "a.png", "text": "x"}', {"caption_column": "texts"}, "Did you mean 'text'"),
        ("a.tar", "not a tar", {}, "uncompressed tar"),
        ("a.parquet", "not parquet", {}, "cannot be read as a data set"),
    ],
)
def test_bad_sources(tmp_path, name, text, settings, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputsError, match=message):
        ImageInputs(ImageInputsConfig(path=tmp_path / name, **settings), preprocess)


def test_empty_or_absent_folder(tmp_path):
    with pytest.raises(InputsError, match="no images"):
        ImageInputs(ImageInputsConfig(path=tmp_path), preprocess)
    with pytest.raises(InputsError, match="no such file or folder"):
        ImageInputs(ImageInputsConfig(path=tmp_path / "none"), preprocess)


def test_hub_examples_are_streamed_once_and_read_at_random(tmp_path):
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data")
    config = ImageInputsConfig(hub=str(tmp_path / "data"), n_examples=3, caption_column="says", class_column="what")
    inputs = ImageInputs(config, preprocess, tokenize)
    assert len(inputs) == 3 and pixels(inputs, 1, 3) == list(COLOURS.values())[1:3]
    assert inputs.batch(2, 3).tokens.tolist() == [[2, 7]] and inputs.labels(0, 3)["class"].tolist() == [0, 0, 1]
    again = ImageInputs(config, preprocess, tokenize)
    assert again.fingerprint == inputs.fingerprint and pixels(again) == pixels(inputs)
    with pytest.raises(InputsError, match="Did you mean 'says'"):
        ImageInputs(replace(config, caption_column="say"), preprocess, tokenize)


def test_opened_by_config(tmp_path):
    config = {"kind": "images", "path": str(write_folder(tmp_path)), "n_examples": 2}
    inputs = open_inputs(config, preprocess=preprocess, tokenize=tokenize)
    assert isinstance(inputs, ImageInputs) and isinstance(inputs, Labelled) and isinstance(inputs, Referencing)
    assert json.loads(json.dumps(inputs.describe())) == inputs.describe()
    assert inputs.describe()["n_examples"] == 2 and inputs.describe()["kind"] == "images"
