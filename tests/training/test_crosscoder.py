"""Runs over several hookpoints side by side."""

import dataclasses
from pathlib import Path

import pytest
import torch
from sparse_subject import HOOKPOINT, IMAGE, TEXT, WIDE, SparseInputs, SparseSubject, harvested

from sae import config as settings
from sae.activations.store import ActivationStore
from sae.dictionaries.batch_topk import BatchTopKConfig
from sae.dictionaries.io import load_dictionary
from sae.dictionaries.sites import hookpoints_read, input_sites, output_sites, relative_norms, site_decoders
from sae.errors import ConfigError, DictionaryError, StoreError
from sae.training.config import TrainConfig
from sae.training.loop import train
from sae.training.optimiser import AdamConfig

Seeds = tuple[ActivationStore, ActivationStore]


@pytest.fixture
def crosscoder(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, n_vectors=200 * 128, optimiser=AdamConfig(lr=0.01))


def site_fvus(config: TrainConfig, stores: list[ActivationStore], names: list[str]) -> list[float]:
    """The saved dictionary's error at each site, on vectors as they are in the stores."""
    vectors = [config.rows.select(store, name) for store in stores for name in names]
    parts = [part.read(0, min(len(part), 3000)) for part in vectors]
    x_hat = load_dictionary(config.out / "dictionary")(torch.cat(parts, 1)).detach()
    found = x_hat.split([part.shape[1] for part in parts], dim=1)
    return [float((y - x).square().sum() / (x - x.mean(0)).square().sum()) for x, y in zip(parts, found, strict=True)]


def test_over_layers_each_site_counts_by_its_own_scale(seeds: Seeds, crosscoder: TrainConfig) -> None:
    config = dataclasses.replace(crosscoder, hookpoint=(HOOKPOINT, WIDE))
    train(seeds[0], config)
    saved = load_dictionary(config.out / "dictionary")
    assert saved.d_in == saved.d_out == 36 and not saved.is_transcoder
    sites = input_sites(saved)
    assert [(site.hookpoint, site.width, site.subject) for site in sites] == [
        (HOOKPOINT, 16, "sparse@0"),
        (WIDE, 20, "sparse@0"),
    ]
    assert sites == output_sites(saved)
    assert saved.provenance["hookpoint"] == f"{HOOKPOINT} + {WIDE}"
    one, two = site_fvus(config, [seeds[0]], [HOOKPOINT, WIDE])
    # The wide site is ten times as long; unscaled it would take all latents.
    assert one < 0.5 and two < 0.5 and 0.5 < one / two < 2


def test_over_two_seeds_on_the_same_inputs(seeds: Seeds, crosscoder: TrainConfig) -> None:
    paths = tuple(store.path for store in seeds)
    config = dataclasses.replace(crosscoder, store=paths, dictionary=BatchTopKConfig(d_sae=48, k=4))
    train(seeds, config)
    saved = load_dictionary(config.out / "dictionary")
    assert [(site.subject, site.hookpoint) for site in input_sites(saved)] == [
        ("sparse@0", HOOKPOINT),
        ("sparse@1", HOOKPOINT),
    ]
    assert saved.provenance["subject"] == "sparse@0 + sparse@1" and saved.provenance["hookpoint"] == HOOKPOINT
    assert max(site_fvus(config, list(seeds), [HOOKPOINT])) < 0.5
    with pytest.raises(DictionaryError, match=r"reads several subjects \(sparse@0 .*, sparse@1 "):
        hookpoints_read(saved)
    norms = relative_norms(saved)
    torch.testing.assert_close(norms.sum(0), torch.ones(48))
    # Both seeds hold every concept, so latents are shared.
    assert ((norms[0] > 0.2) & (norms[0] < 0.8)).float().mean() > 0.8


def test_over_every_hookpoint_of_every_store(seeds: Seeds, crosscoder: TrainConfig) -> None:
    changes = {"store": tuple(store.path for store in seeds), "hookpoint": (HOOKPOINT, WIDE), "n_vectors": 60 * 128}
    saved = train(seeds, dataclasses.replace(crosscoder, **changes))
    assert [(site.subject, site.hookpoint) for site in input_sites(saved)] == [
        (subject, name) for subject in ("sparse@0", "sparse@1") for name in (HOOKPOINT, WIDE)
    ]


def test_over_two_towers_by_example(seeds: Seeds, crosscoder: TrainConfig) -> None:
    config = dataclasses.replace(crosscoder, hookpoint=(IMAGE, TEXT))
    saved = train(seeds[0], config)
    assert saved.provenance["n_vectors"] == 256 and saved.d_in == 32
    assert max(site_fvus(config, [seeds[0]], [IMAGE, TEXT])) < 0.7
    with pytest.raises(StoreError, match=r"different grids \(visual\.pooled, tokens\) go together by example"):
        other = config.out.with_name("other")
        train(seeds[0], dataclasses.replace(config, hookpoint=(IMAGE, HOOKPOINT), out=other))


def test_relative_norms_count_in_mean_norms_of_the_sites(seeds: Seeds, crosscoder: TrainConfig) -> None:
    saved = train(seeds[0], dataclasses.replace(crosscoder, hookpoint=(HOOKPOINT, WIDE), n_vectors=60 * 128))
    one, two = site_decoders(saved)
    assert one.shape == (48, 16) and two.shape == (48, 20) and one.data_ptr() == saved.W_dec.data_ptr()
    mean_norms = [site.mean_norm for site in input_sites(saved)]
    assert mean_norms[1] / mean_norms[0] > 5
    expected = (two.norm(dim=1) / mean_norms[1]) / (one.norm(dim=1) / mean_norms[0] + two.norm(dim=1) / mean_norms[1])
    torch.testing.assert_close(relative_norms(saved)[1], expected)
    assert hookpoints_read(saved) == (HOOKPOINT, WIDE)


def test_sites_that_do_not_fit_the_dictionary(seeds: Seeds, crosscoder: TrainConfig) -> None:
    saved = train(seeds[0], dataclasses.replace(crosscoder, n_vectors=60 * 128))
    assert hookpoints_read(saved) == (HOOKPOINT,)
    saved.provenance["sites"][0]["width"] = 15
    with pytest.raises(DictionaryError, match=r"sites: \[15\] wide, the dictionary 16"):
        input_sites(saved)
    saved.provenance = {"hookpoint": HOOKPOINT}
    assert input_sites(saved)[0].subject is None
    with pytest.raises(DictionaryError, match="gives no scale"):
        relative_norms(saved)
    saved.provenance = {}
    with pytest.raises(DictionaryError, match="lists no sites"):
        input_sites(saved)


def test_lists_in_yaml(tmp_path: Path, crosscoder: TrainConfig) -> None:
    several = dataclasses.replace(crosscoder, store=(Path("a"), Path("b")), hookpoint=(HOOKPOINT, WIDE))
    settings.save(several, tmp_path / "train.yaml")
    assert settings.load(TrainConfig, tmp_path / "train.yaml") == several
    with pytest.raises(ConfigError, match=r"hookpoint .*each of them once"):
        dataclasses.replace(crosscoder, hookpoint=(HOOKPOINT, HOOKPOINT))
    with pytest.raises(ConfigError, match=r"store .*needs one or more"):
        dataclasses.replace(crosscoder, store=())


def test_stores_of_other_inputs_are_refused(
    seeds: Seeds, crosscoder: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SparseInputs, "fingerprint", "others")
    other = harvested(SparseSubject("sparse@2", 3), tmp_path / "other")
    config = dataclasses.replace(crosscoder, store=(seeds[0].path, other.path))
    with pytest.raises(StoreError, match="same inputs"):
        train([seeds[0], other], config)
