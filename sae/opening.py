"""Opening what a store was made from: its subject, and its inputs with what they need of it."""

from pathlib import Path
from typing import Any

from sae import config


def open_subject(subject_id: str, inputs_config: Any, device: str = "cpu") -> tuple[Any, Any]:
    """Load a subject and open inputs with what it has: a tokenizer, or tokenizing of captions and preprocessing."""
    from sae.inputs.source import open_inputs
    from sae.subjects.load import load

    subject = load(subject_id, device=device)
    inputs = open_inputs(
        inputs_config,
        tokenizer=getattr(subject, "tokenizer", None),
        tokenize=getattr(subject, "tokenize", None),
        preprocess=getattr(subject, "preprocess", None),
    )
    return subject, inputs


def open_harvested(harvested: Any, device: str = "cpu") -> tuple[Any, Any]:
    """Load the subject and open the inputs of a harvest again."""
    return open_subject(harvested.subject, harvested.inputs, device)


def open_store(store: Path, device: str = "cpu") -> tuple[Any, Any]:
    """Load the subject that a store was made from, and open its inputs again."""
    from sae.activations.harvest_config import HarvestConfig

    return open_harvested(config.load(HarvestConfig, store / "config.yaml"), device)
