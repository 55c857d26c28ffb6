"""The recipes for published CLIP models, run on random models of the same architectures made tiny."""

import io
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clip import save_clip

from sae import config
from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.inputs.source import open_inputs
from sae.subjects.clip_towers import text_sites, visual_sites
from sae.subjects.load import load

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = {"vit-b-32": "vit", "vit-l-14": "vit", "vit-l-14-captions": "vit", "rn50x4": "resnet", "siglip2": "timm"}
N_IMAGES = 5


def recipe(name: str) -> HarvestConfig:
    return config.load(HarvestConfig, CONFIGS / f"harvest-clip-{name}.yaml")


def published(settings: HarvestConfig) -> list[str]:
    """Return the hookpoints of the architecture that a recipe names, built without its weights."""
    import open_clip

    name, tag = settings.subject.removeprefix("clip:").split("/")
    assert tag in open_clip.list_pretrained_tags_by_model(name)
    model_config = open_clip.get_model_config(name)
    wants = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
    assert wants == model_config.get("quick_gelu", False)
    custom = model_config.pop("custom_text", False)
    with torch.device("meta"):
        model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**model_config)
    size = model_config["vision_cfg"]["image_size"]
    sites = [*visual_sites(model.visual, (size, size))[0], *text_sites(getattr(model, "text", model))]
    return [*(site.hookpoint.name for site in sites), "visual.embedding", "text.embedding"]


def shrunk(hookpoint: str, real: list[str], tiny: list[str]) -> str:
    """Return the hookpoint at the same relative depth in a model with fewer blocks, or blocks in a stage."""
    found = re.fullmatch(r"(.*?\.)(\d+)(\..*)", hookpoint)
    if found is None:
        return hookpoint
    before, number, after = found.groups()
    depths = [
        sum(bool(re.fullmatch(re.escape(before) + r"\d+" + re.escape(after), n)) for n in names)
        for names in (real, tiny)
    ]
    return f"{before}{int(number) * depths[1] // depths[0]}{after}"


def encoded(seed: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="PNG")
    return buffer.getvalue()


def write_pairs(folder: Path, caption: str | None) -> None:
    """Write what the recipe expects to find: .tar shards, or images with or without metadata.jsonl."""
    folder.mkdir()
    files = {}
    for number in range(N_IMAGES):
        files[f"{number}.png"] = encoded(number)
        files[f"{number}.txt"] = f"the cat {'and the dog ' * number}".encode()
    if caption == "txt":
        with tarfile.open(folder / "0.tar", "w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return
    rows = []
    for number in range(N_IMAGES):
        (folder / f"{number}.png").write_bytes(files[f"{number}.png"])
        rows.append(json.dumps({"file_name": f"{number}.png", caption or "text": files[f"{number}.txt"].decode()}))
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")


@pytest.mark.parametrize("name", list(TINY))
def test_recipe(name, tmp_path):
    settings = recipe(name)
    real = published(settings)
    assert set(settings.hookpoints) <= set(real)

    subject = load(f"clip:{save_clip(tmp_path / 'model', TINY[name])}")
    write_pairs(tmp_path / "images", settings.inputs.caption_column)
    inputs = open_inputs(
        replace(settings.inputs, path=tmp_path / "images"), tokenize=subject.tokenize, preprocess=subject.preprocess
    )
    hookpoints = tuple(shrunk(point, real, list(subject.hookpoints())) for point in settings.hookpoints)
    store = harvest(
        subject,
        inputs,
        replace(settings, subject=subject.id, hookpoints=hookpoints, out=tmp_path / "store", device="cpu"),
    )

    assert list(store.hookpoints) and set(store.hookpoints) == set(hookpoints)
    batch = inputs.batch(0, N_IMAGES)
    for point in hookpoints:
        vectors = store.vectors(point)
        rows = subject.rows(batch, subject.hookpoints()[point].grid).keep.sum(1)
        expected = rows if settings.rows_per_example is None else rows.clamp(max=settings.rows_per_example)
        assert len(vectors) == int(expected.sum())
        read, provenance = vectors.read(0, len(vectors)), vectors.provenance(0, len(vectors))
        whole = subject.run(batch, [point])[point]
        torch.testing.assert_close(read, whole[provenance.example, provenance.position], atol=0.02, rtol=0.01)


def test_every_recipe_is_tested():
    assert {path.stem.removeprefix("harvest-clip-") for path in CONFIGS.glob("harvest-clip-*.yaml")} == set(TINY)
