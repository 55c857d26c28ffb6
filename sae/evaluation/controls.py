"""What a dictionary is compared with: units that owe nothing to learning a dictionary of this subject.

Those made here need a sample of vectors and no training. Those that need it are ordinary dictionaries in `controls/`
below the dictionary that they are the controls of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sae.dictionaries import io
from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Constant, ConstantConfig, Identity, IdentityConfig, Pca, PcaConfig
from sae.dictionaries.threshold import Thresholded
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import EvaluationError
from sae.evaluation.sample import CONTROL_SEED
from sae.tensors import Vectors

CALIBRATION_ROWS = 16_384
"""Rows, spread evenly over those given, from which thresholds and components are taken."""

N_CONSTANT = 16
"""Constant units are all alike; this many make an average with an interval."""

DESCRIPTIONS = {
    "neurons": "The raw neurons, one unit per coordinate.",
    "neurons_cut": "The raw neurons, in every row the largest ones only, as many as latents fire.",
    "neurons_rectified": "The raw neurons above thresholds at which they fire as rarely as the latents.",
    "pca": "Principal components, each with both signs.",
    "random_directions": "As many random directions as latents, each firing as often as its latent.",
    "constant": "Units that always answer one.",
    "frozen_decoder": "A dictionary trained alike whose decoder stayed random.",
    "frozen_encoder": "A dictionary trained alike whose encoder stayed random.",
    "untrained_subject": "A dictionary trained alike on the same subject with random weights.",
    "shuffled": "The dictionary's own latents with activations dealt out at random: whatever is left is chance.",
}
"""Every control in the order of reports, in a sentence."""

TRAINED = ("frozen_decoder", "frozen_encoder", "untrained_subject")
"""Controls that are dictionaries which somebody has to train."""


@dataclass(frozen=True)
class Control:
    """Units that are scored like a dictionary's latents."""

    name: str
    description: str
    dictionary: Dictionary


def controls_for(
    dictionary: Dictionary, x: Shaped[Tensor, "rows d_in"], rates: Float[Tensor, " d_sae"], l0: float, seed: int = 0
) -> list[Control]:
    """Return the controls of a dictionary that need no training, in the order of reports.

    Args:
        dictionary: what they are compared with.
        x: rows of the kind that are scored, in any number format; at most `CALIBRATION_ROWS` of them are used.
        rates: share of rows on which each latent fires.
        l0: mean number of latents that fire in a row.
        seed: of the random directions.

    Raises:
        EvaluationError: the vectors or the rates are not those of this dictionary, or too few.
    """
    _check(dictionary, x, rates)
    sample, d_in = _spread(x), dictionary.d_in
    rates = rates.cpu()
    make: dict[str, Callable[[], Dictionary]] = {
        "neurons": lambda: Identity(IdentityConfig(d_sae=d_in), d_in),
        "neurons_cut": lambda: _cut_neurons(d_in, l0),
        "neurons_rectified": lambda: Thresholded.neurons(sample, rates),
        "pca": lambda: _initialised(Pca(PcaConfig(d_sae=2 * d_in), d_in), sample),
        "random_directions": lambda: random_directions(sample, rates, seed),
        "constant": lambda: _initialised(Constant(ConstantConfig(d_sae=N_CONSTANT), d_in), sample),
    }
    device = dictionary.W_dec.device
    return [Control(name, DESCRIPTIONS[name], made().to(device).eval()) for name, made in make.items()]


def random_directions(x: Shaped[Tensor, "rows d_in"], rates: Float[Tensor, " d_sae"], seed: int = 0) -> Thresholded:
    """Return as many random directions as there are rates, each firing as often.

    Args:
        x: rows to set thresholds on, at most `CALIBRATION_ROWS` of them.
        rates: share of rows on which each is to fire.
        seed: other seeds give other directions.
    """
    return Thresholded.random_directions(_spread(x), rates, torch.Generator().manual_seed(CONTROL_SEED + seed))


def shipped_controls(source: Path | str) -> dict[str, str]:
    """Return where the trained controls of a dictionary lie, by name, as far as there are any.

    Args:
        source: folder or `builtin:` name of the dictionary; its controls are `source/controls/NAME`.

    Raises:
        ConfigError: no built-in dictionary has that name.
    """
    folder = io.dictionary_folder(source) / "controls"
    return {name: f"{source}/controls/{name}" for name in TRAINED if (folder / name / io.CONFIG_FILE).is_file()}


def _cut_neurons(d_in: int, l0: float) -> Dictionary:
    """Return the identity cut to the largest coordinates; of these only the positive ones fire."""
    neurons = TopK(TopKConfig(d_sae=d_in, k=min(max(round(l0), 1), d_in)), d_in).requires_grad_(False)
    neurons.W_enc_rows.copy_(torch.eye(d_in))
    neurons.W_dec.copy_(torch.eye(d_in))
    return neurons


def _spread(x: Shaped[Tensor, "rows d_in"]) -> Vectors:
    """Return at most `CALIBRATION_ROWS` of the rows, evenly spread."""
    return x[:: -(-len(x) // CALIBRATION_ROWS)].float().cpu()


def _initialised(dictionary: Dictionary, sample: Vectors) -> Dictionary:
    dictionary.initialise(sample, torch.Generator())
    return dictionary


def _check(dictionary: Dictionary, x: Tensor, rates: Tensor) -> None:
    if x.shape[1] != dictionary.d_in or len(x) < 2:
        raise EvaluationError(f"controls of {dictionary!r}: need 2 or more vectors of its width, got {list(x.shape)}.")
    if len(rates) != dictionary.d_sae:
        raise EvaluationError(f"controls of {dictionary!r}: got firing rates of {len(rates)} latents.")
