"""Shape checks for the whole package, and tiny language models in local folders."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook
from tiny_language import save_model

# Before anything of the package is imported; shape_check.py says what is checked.
install_import_hook("sae", "shape_check.checked")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Read when Triton is first imported: without a GPU its kernels are interpreted.
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("gpt2", tmp_path_factory.mktemp("tiny") / "gpt2")


@pytest.fixture(scope="session")
def tiny_neox_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("neox", tmp_path_factory.mktemp("tiny") / "neox")


@pytest.fixture(scope="session")
def tiny_llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def tiny_gemma2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("gemma2", tmp_path_factory.mktemp("tiny") / "gemma2")


@pytest.fixture(scope="session")
def tiny_bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("bert", tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(scope="session")
def tiny_folders(tiny_gpt2_folder, tiny_neox_folder, tiny_llama_folder, tiny_gemma2_folder, tiny_bert_folder):
    """The folders by architecture."""
    folders = (tiny_gpt2_folder, tiny_neox_folder, tiny_llama_folder, tiny_gemma2_folder, tiny_bert_folder)
    return {folder.name: folder for folder in folders}
