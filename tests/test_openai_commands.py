"""What docs/multimodal.md says for OpenAI's RN50x4 and ViT-L/14 runs as written, on random models of the same depth.

Models, numbers of vectors and of latents are replaced, and the device; all else, every path included, is the page's.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from documented import ROOT, commands
from PIL import Image
from tiny_clip import save_clip

from sae import cli
from sae.activations.store import ActivationStore
from sae.dictionaries.io import load_dictionary

CLASSES = ("spider", "owl", "cat", "car", "tree", "boat", "fish", "crown", "flower", "clock", "shoe", "chair")
N_PICTURES = 40
MODELS = {"RN50x4": "clip:rn", "ViT-L-14": "clip:vit"}
SMALLER = {
    "harvest": "--batch-examples 16 --shard-examples 64 --rows-per-example 4",
    "train": "--dictionary.d-sae 96 --dictionary.k 4 --n-vectors 20000 --batch-vectors 256",
    "catalog": "--near-vectors 1000 --workers 1",
    "visualise": "--n-latents 2 --steps 4",
    "attack": "--n-pairs 24 --n-tried 12",
    "atlas": "--n-cells 4",
    "label": "--n-each 4 --n-levels 4",
    "levels": "--n-levels 4 --n-each 8 --n-deals 19",
    "steer": "--strengths 0 1 --n-examples 4 --n-controls 2",
    "ablate": "--shares 1 --per-concept 1 --n-examples 2",
    "lesion": "--counts 1 4 --bits 2 --per-concept 1 --n-examples 2",
}
WORKING = [
    words
    for words in commands(ROOT / "docs" / "multimodal.md")
    if any("clip-rn50x4" in word or "clip-vit-l-14" in word for word in words)
]
RECIPE = [words for words in WORKING if words[0] in ("harvest", "train")]
pytestmark = pytest.mark.slow


def write_pictures(folder: Path, names: tuple[str, ...], n: int) -> None:
    """Write pictures of noise about a pattern of their folder's own, so that there is something to find."""
    rng = np.random.default_rng(len(names))
    for name, pattern in zip(names, rng.integers(0, 256, (len(names), 6, 6, 3)), strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(n):
            pixels = np.clip(pattern + rng.normal(0, 30, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((72, 64)).save(folder / name / f"{number}.png")


def run(words: list[str], latent: int = 0) -> int:
    """Run a command of the page, smaller, on a latent that fires."""
    words = [re.sub(r"^(latent:)?\d+$", rf"\g<1>{latent}", word) if before in ("--latent", "--unit") else word
             for before, word in zip(["", *words], words, strict=False)]  # fmt: skip
    given = [next((tiny for name, tiny in MODELS.items() if word.startswith(f"clip:{name}")), word) for word in words]
    given = ["cpu" if word == "cuda" else word for word in given]
    model = next(tiny for name, tiny in MODELS.items() if name.lower() in " ".join(words).lower())
    smaller = SMALLER.get(words[1] if words[0] == "lab" else words[0], "").split()
    return cli.main([*given, *smaller, *(["--subject", model] if words[0] == "harvest" else [])])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder in which the recipe was run, with what other commands name, and a latent of RN50x4 that often fires."""
    folder = tmp_path_factory.mktemp("openai")
    save_clip(folder / "rn", "resnet", layers=[1, 1, 10, 6], width=4, head_width=16)
    save_clip(folder / "vit", "vit", layers=24, width=16)
    shutil.copytree(ROOT / "configs", folder / "configs")
    write_pictures(folder / "DIR", CLASSES, N_PICTURES)
    write_pictures(folder / "FACETS", ("face", "text", "logo"), 30)
    (folder / "words.txt").write_text("door\nlamp\nbread\nwater\n")
    groups = {"animal": ["spider", "owl", "cat", "fish"], "vehicle": ["car", "boat"]}
    (folder / "groups.json").write_text(json.dumps(groups))
    (folder / "associations.json").write_text(json.dumps({name: {"fish": 0.3} for name in ("owl", "cat", "boat")}))
    places = {name: [number % 4, number // 4] for number, name in enumerate(CLASSES)}
    (folder / "places.json").write_text(json.dumps(places))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert [run(words) for words in RECIPE] == [0] * 6
    dictionary = load_dictionary(folder / "runs/clip-rn50x4/layer4/dictionary")
    vectors = ActivationStore(folder / "runs/clip-rn50x4/store").vectors("visual.layer4.5.hook_post")
    codes = dictionary.encode(vectors.read(0, len(vectors)).float())
    return folder, int(codes.n_fired().argmax())


@pytest.mark.parametrize("words", [words for words in WORKING if words not in RECIPE], ids=" ".join)
def test_the_command_runs(
    words: list[str], made: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, latent = made
    monkeypatch.chdir(folder)
    status = run(words, latent)
    said = capsys.readouterr()
    assert status == 0, said.err
    if "--out" in words:
        assert "saved in" in said.out
