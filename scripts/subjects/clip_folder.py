"""The folder of a CLIP subject: an ordinary local open_clip folder, plus what the concept world knows about it."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import open_clip
from safetensors.torch import save_file

from sae.inputs.concepts import World
from scripts.subjects.bpe import learn_merges, write_merges
from scripts.subjects.clip_pictures import Pictures

CONTEXT = 24
N_MERGES = 640
BPE_FILE = "bpe_simple_vocab.txt.gz"
RESNET = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64}
VISION = {
    "concepts-clip-rn": RESNET,
    "concepts-clip-rn-reader": RESNET,
    "concepts-clip": {"layers": 4, "width": 128, "head_width": 32, "patch_size": 8, "mlp_ratio": 1.0},
}
"""Image towers; the text tower is the same. The transformer's MLPs are narrow so that concepts must share neurons."""


def model_config(name: str, size: int, vocab_size: int) -> dict:
    """Return open_clip's `model_cfg`, without the tokenizer."""
    text = {
        "context_length": CONTEXT,
        "vocab_size": vocab_size,
        "width": 128,
        "heads": 4,
        "layers": 2,
        "mlp_ratio": 2.0,
    }
    return {"embed_dim": 128, "vision_cfg": VISION[name] | {"image_size": size}, "text_cfg": text}


def _word_counts(world: World, pictures: Iterable[Pictures]) -> Counter:
    """Count the words of the captions trained on; concepts and aliases count at least as much as a frequent word."""
    counts = Counter(word for each in pictures for text in each.captions() for word in re.findall("[a-z]+", text))
    floor = max(counts.values()) // 50
    for concept in world.concepts:
        for word in (concept.name, *concept.aliases):
            counts[word] = max(counts[word], floor)
    return counts


def learn_tokenizer(world: World, pictures: Iterable[Pictures], path: Path) -> open_clip.SimpleTokenizer:
    """Return a tokenizer whose merges are learnt from the captions, written to `path` unless they are there."""
    if not path.exists():
        counts = _word_counts(world, pictures)
        part = path.with_suffix(".part")
        write_merges(part, learn_merges(dict(sorted(counts.items())), N_MERGES))
        part.replace(path)
    return open_clip.SimpleTokenizer(bpe_path=str(path), context_length=CONTEXT)


def write_folder(
    out: Path, name: str, size: int, model: open_clip.CLIP, bpe: Path, world: World, pictures: Iterable[Pictures]
) -> None:
    """Write configuration, weights, merges, vocabulary and concepts; `sheet.json` is written apart."""
    out.mkdir(parents=True, exist_ok=True)
    model_cfg = model_config(name, size, model.vocab_size)
    model_cfg["text_cfg"]["tokenizer_kwargs"] = {"bpe_path": BPE_FILE}
    half = [0.5, 0.5, 0.5]
    preprocess = {
        "size": size,
        "mode": "RGB",
        "mean": half,
        "std": half,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    _write(out / "open_clip_config.json", {"model_cfg": model_cfg, "preprocess_cfg": preprocess})
    weights = {
        key: value.detach().float().contiguous()
        for key, value in model.state_dict().items()
        if value.is_floating_point()
    }
    save_file(weights, out / "part", metadata={"format": "pt"})
    (out / "part").chmod(0o644)
    (out / "part").replace(out / "open_clip_model.safetensors")
    shutil.copyfile(bpe, out / BPE_FILE)
    _write(out / "vocabulary.json", sorted(_word_counts(world, pictures)))
    _write(out / "concepts.json", world.table())


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def read_folder(folder: Path) -> tuple[open_clip.CLIP, open_clip.SimpleTokenizer]:
    """Return the model in evaluation mode and its tokenizer, as open_clip itself reads them."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    bpe = str(folder / config["tokenizer_kwargs"]["bpe_path"])
    return model, open_clip.SimpleTokenizer(bpe_path=bpe, context_length=config["context_length"])
