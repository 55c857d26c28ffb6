"""Every language recipe runs, on a random model of the same architecture and depth made tiny, and on local text."""

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_language import save_model
from transformers import AutoTokenizer

from sae import config
from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.config import decode
from sae.inputs.configs import TextInputsConfig
from sae.inputs.source import open_inputs
from sae.subjects.load import load
from sae.tensors import Kind

CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = {
    "harvest-gpt2": ("gpt2", 12),
    "harvest-pythia-70m": ("neox", 6),
    "harvest-gemma-2-2b": ("gemma2", 26),
    "harvest-gemma-2-2b-it-chat": ("gemma2", 26),
}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    talk = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "The cat sat on the mat."}]
    row = json.dumps({"text": "The cat sat on the mat. " * 20, "messages": talk})
    path = tmp_path / "documents.jsonl"
    path.write_text(f"{row}\n" * 8)
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str, tmp_path: Path, documents: Path) -> None:
    architecture, n_layers = RECIPES[name]
    folder = save_model(architecture, tmp_path / "model", n_layers)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    recipe = config.load(HarvestConfig, CONFIGS / f"{name}.yaml")
    given = decode(TextInputsConfig, recipe.inputs)
    local = {"hub": None, "subset": None, "path": documents, "n_examples": 8, "context": min(given.context, 64)}
    small = dataclasses.replace(
        recipe,
        subject=f"language:{folder}",
        inputs=dataclasses.replace(given, **local),
        device="cpu",
        out=tmp_path / "store",
        batch_examples=2,
        shard_examples=4,
    )
    subject = load(small.subject)
    inputs = open_inputs(small.inputs, tokenizer=subject.tokenizer)
    store = harvest(subject, inputs, small)
    for hookpoint in recipe.hookpoints:
        tokens = store.vectors(hookpoint, kinds=(Kind.TOKEN,))
        assert 0 < len(tokens) <= len(store.vectors(hookpoint, kinds=tuple(Kind)))
        assert tokens.read(0, 4).isfinite().all()


@pytest.mark.parametrize("name", RECIPES)
def test_header_says_the_command(name: str) -> None:
    assert (CONFIGS / f"{name}.yaml").read_text().splitlines()[0] == f"# sae harvest configs/{name}.yaml"
