"""CLIP models of every architecture the package knows, random and tiny, saved as open_clip folders."""

import gzip
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

MERGES = ("t h", "th e</w>", "c a", "ca t</w>", "d o", "do g</w>")
N_VOCAB = 512 + len(MERGES) + 2
TEXT = {"context_length": 12, "width": 32, "heads": 2, "layers": 2, "tokenizer_kwargs": {"bpe_path": "bpe.txt.gz"}}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {**TEXT, "vocab_size": N_VOCAB},
    },
    "resnet": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "head_width": 32},
        "text_cfg": {**TEXT, "vocab_size": N_VOCAB},
    },
    "timm": {
        "embed_dim": 64,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {**TEXT, "vocab_size": N_VOCAB, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "hf_text": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {
            "context_length": 12,
            "hf_model_name": "encoder",
            "hf_tokenizer_name": "encoder",
            "hf_pooler_type": "mean_pooler",
        },
    },
}


def save_clip(folder: Path, name: str, tokenizer_from: Path | None = None, **vision: Any) -> Path:
    """Save a random model; `tokenizer_from` is a BERT folder for `hf_text`, `vision` changes that tower's settings."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = deepcopy(CONFIGS[name])
    config["vision_cfg"] |= vision
    if tokenizer_from is not None:
        _save_encoder(folder, tokenizer_from)
    else:
        with gzip.open(folder / "bpe.txt.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(("#version: tiny", *MERGES)))
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic"}
    settings = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(settings), encoding="utf-8")

    built = deepcopy(config)
    custom = built.pop("custom_text", False) or tokenizer_from is not None
    if tokenizer_from is not None:
        built["text_cfg"] |= {"hf_model_name": str(folder / "encoder"), "hf_model_pretrained": False}
    torch.manual_seed(0)
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**built)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not key.startswith("logit_"):
                parameter.add_(torch.randn_like(parameter) * 0.05)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def _save_encoder(folder: Path, tokenizer_from: Path) -> None:
    """Put a BERT config into `encoder/`, and its tokenizer where open_clip looks for one."""
    (folder / "encoder").mkdir(exist_ok=True)
    (folder / "encoder/config.json").write_bytes((tokenizer_from / "config.json").read_bytes())
    for path in tokenizer_from.glob("tokenizer*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
