"""What a CLIP model lies in: the files of its folder, its vocabulary, its weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from sae.errors import SubjectError


def read_folder(subject_id: str, folder: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return a folder's open_clip name, with its config's references to further files made absolute.

    Returns:
        The name, and what replaces settings of the model and of the tokenizer.
    """
    path = folder / "open_clip_config.json"
    try:
        text_config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        needed = "a CLIP folder has open_clip_config.json (with model_cfg) and open_clip_model.safetensors"
        raise SubjectError(f"{subject_id}: cannot read {path}: {error!r}; {needed}.") from error
    tokenizer_settings = dict(text_config.get("tokenizer_kwargs") or {})
    if "bpe_path" in tokenizer_settings:
        tokenizer_settings["bpe_path"] = str(folder / tokenizer_settings["bpe_path"])
    overrides = {}
    encoder = text_config.get("hf_model_name")
    if encoder and (folder / encoder).is_dir():
        overrides["text_cfg"] = text_config | {"hf_model_name": str(folder / encoder), "hf_model_pretrained": False}
    return f"local-dir:{folder}", overrides, tokenizer_settings


def check_vocabulary(subject_id: str, model: Any, tokenizer: Any) -> None:
    """Check that the text tower has an embedding for every token, and ends its texts as expected.

    Raises:
        SubjectError: the tokenizer is another model's, or the model is a CoCa.
    """
    text = getattr(model, "text", model)
    if getattr(text, "cls_emb", None) is not None:
        raise SubjectError(f"{subject_id}: CoCa models, whose text ends in a class embedding, are not supported.")
    n_tokens = getattr(tokenizer, "vocab_size", 0)
    if n_tokens > text.vocab_size:
        raise SubjectError(
            f"{subject_id}: the tokenizer has {n_tokens} tokens and the text tower {text.vocab_size} embeddings; "
            "text_cfg.tokenizer_kwargs.bpe_path must name the vocabulary it was trained with."
        )


def hash_weights(model: torch.nn.Module) -> str:
    """Return the sha256 of all weights with their names and shapes, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
