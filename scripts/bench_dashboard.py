"""The same dictionary's latents as cards of a catalog and as dashboards of SAEDashboard, on the same texts.

python -m scripts.bench_dashboard [--json FILE] [--threads 2] [--features 256]

Runs in the environment of scripts/interop_environment.sh. SAEDashboard goes over all texts once for every 256 features,
so its time grows with their number; it is measured on a few and multiplied. It reads the dictionary from the file that
`sae convert --format saelens` writes. Its fold of decoder norms is skipped, which its runner asks of SAELens for every
dictionary and SAELens refuses for TopK; the norms are 1. A catalog is built without its map, neurons included.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae import cli
from sae.activations.store import ActivationStore
from sae.dictionaries.io import load_dictionary, writer
from sae.features.building.build import build
from sae.features.building.catalog_config import CatalogConfig
from scripts import bench
from scripts.bench import Figure, timed
from scripts.bench_catalog import DICTIONARY, HOOKPOINT, STORE

BATCH = 256


def hooked(subject: Any) -> Any:
    """Return the built-in language model as the class of TransformerLens that SAEDashboard runs."""
    from sae_lens import HookedSAETransformer
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    config = subject.model.config
    settings = HookedTransformerConfig(
        n_layers=config.n_layer,
        d_model=config.n_embd,
        n_ctx=config.n_positions,
        d_head=config.n_embd // config.n_head,
        n_heads=config.n_head,
        d_mlp=config.n_inner,
        d_vocab=config.vocab_size,
        act_fn=config.activation_function,
        normalization_type="LN",
        device="cpu",
    )
    model = HookedSAETransformer(settings, tokenizer=subject.tokenizer)
    weights = convert_gpt2_weights(subject.model, settings)
    model.load_and_process_state_dict(weights, fold_ln=False, center_writing_weights=False, center_unembed=False)
    tokens = torch.arange(64)[None]
    assert torch.allclose(model(tokens), subject.model(tokens).logits, atol=1e-3)
    return model


def dashboards(model: Any, folder: Path, tokens: Tensor, n_features: int) -> Any:
    """Make SAEDashboard's data of the first features."""
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner
    from sae_lens import SAE

    dictionary = SAE.load_from_disk(folder, device="cpu")
    dictionary.fold_W_dec_norm = lambda: None  # type: ignore[method-assign]
    settings = SaeVisConfig(
        hook_point=HOOKPOINT,
        features=list(range(n_features)),
        minibatch_size_features=BATCH,
        minibatch_size_tokens=64,
        device="cpu",
        dtype="float32",
        verbose=False,
    )
    return SaeVisRunner(settings).run(encoder=dictionary, model=model, tokens=tokens)


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--features", type=int, default=BATCH, help="dashboards to make, a multiple of 256")
    options = parser.parse_args()
    if options.features < BATCH or options.features % BATCH:
        parser.error(f"--features: a multiple of {BATCH}, got {options.features}")
    torch.set_num_threads(options.threads)
    dictionary, store = load_dictionary(DICTIONARY), ActivationStore(STORE)
    subject, inputs = cli.open_store(STORE)
    tokens = torch.stack([torch.as_tensor(store.inputs.tokens(i)).long() for i in range(len(store.inputs))])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer("saelens")(dictionary, folder / "saelens")
        model = hooked(subject)
        theirs = timed(lambda: dashboards(model, folder / "saelens", tokens, options.features)).clock
        settings = CatalogConfig(dictionary=DICTIONARY, store=STORE, out=folder / "catalog", map=False)
        ours = timed(lambda: build(dictionary, store, settings, subject, inputs)).clock
    whole = theirs * dictionary.d_sae / options.features
    figures = [
        Figure("dashboard/tokens", tokens.numel(), "tokens", "neither"),
        Figure(f"dashboard/saedashboard_{options.features}", theirs, "s"),
        Figure("dashboard/saedashboard_all_extrapolated", whole, "s"),
        Figure("dashboard/catalog_all", ours, "s"),
        Figure("dashboard/over_saedashboard", ours / whole, "x", target=1.0),
    ]
    bench.publish(figures, options.json)


if __name__ == "__main__":
    main()
