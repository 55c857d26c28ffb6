"""Opening again what a harvest ran: the subject and the inputs, from the config that lies in a store."""

from pathlib import Path
from typing import Any

from sae import config
from sae.activations.harvest_config import HarvestConfig
from sae.inputs.source import open_inputs
from sae.subjects.load import load


def open_both(subject_id: str, inputs_config: Any, device: str = "cpu") -> tuple[Any, Any]:
    """Load a subject and open inputs with what it has: a tokenizer, or tokenizing of captions and preprocessing."""
    subject = load(subject_id, device=device)
    inputs = open_inputs(
        inputs_config,
        tokenizer=getattr(subject, "tokenizer", None),
        tokenize=getattr(subject, "tokenize", None),
        preprocess=getattr(subject, "preprocess", None),
    )
    return subject, inputs


def open_harvested(harvested: HarvestConfig, device: str = "cpu") -> tuple[Any, Any]:
    """Load the subject and open the inputs of a harvest again."""
    return open_both(harvested.subject, harvested.inputs, device)


def open_store(store: Path, device: str = "cpu") -> tuple[Any, Any]:
    """Load the subject that a store was made from, and open its inputs again."""
    return open_harvested(config.load(HarvestConfig, store / "config.yaml"), device)
