"""A rotated copy of a network has all counterparts, an unrelated one none, and random directions few."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from live_catalogs import image_catalog
from toy_judged import ToyFaces

from sae import cli
from sae.activations.store import Provenance
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import ConfigError, EvaluationError
from sae.evaluation.sample import Sample
from sae.lab.universality.networks import Network, network, share_of
from sae.lab.universality.universality import Config, counterparts, finding
from sae.lab.workbench import Workbench
from sae.subjects.base import Hookpoint

N, D, HOOKPOINT = 1200, 16, "visual.embedding"


class Formed:
    """A subject of which only the name, the hookpoints and the class are asked."""

    kind = "clip"

    def __init__(self, name: str, layers: int = 2, width: int = D, block: str = "visual.layer", of: str = "") -> None:
        self.id, self.of = name, of
        names = [f"{block}{number}.hook_post" for number in range(layers)]
        self.points = {name: Hookpoint(name, width, "visual.pooled") for name in (*names, HOOKPOINT)}

    def hookpoints(self) -> Mapping[str, Hookpoint]:
        return self.points

    def provenance(self) -> dict[str, str]:
        return {"architecture": self.of}


def codes(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    fires = torch.rand(N, D, generator=generator) < 0.08
    return fires * (1 + torch.rand(N, D, generator=generator))


def basis(seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(seed))).Q


def put(code: torch.Tensor, directions: torch.Tensor) -> tuple[TopK, Sample]:
    """Return a dictionary of orthogonal directions and the vectors that hold them by a code."""
    dictionary = TopK(TopKConfig(d_sae=D, k=6), D).requires_grad_(False)
    dictionary.W_enc_rows.copy_(directions)
    dictionary.W_dec.copy_(directions)
    inputs = ToyFaces(n=N)
    rows = Provenance(torch.arange(N), torch.zeros(N, dtype=torch.int32), torch.full((N,), 4, dtype=torch.uint8))
    labels = inputs.labels(0, N)
    match = torch.arange(N) % 2 == 0
    return dictionary, Sample(
        x=code @ directions, rows=rows, pooled=True, labels=labels, factors=labels, label_names=inputs.label_names,
        match=match,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made() -> tuple[Workbench, list[Network]]:
    dictionary, sample = put(codes(0), basis(1))
    dictionary.provenance = {"hookpoint": HOOKPOINT}
    about = {"dictionary": {"sha256": "0" * 64}, "store": {"sha256": "0" * 64}}
    bench = Workbench(dictionary, Formed("builtin:toy@0"), ToyFaces(n=N), None, N, about=about)  # type: ignore[arg-type]
    bench.__dict__["sample"] = sample
    order = torch.randperm(D, generator=torch.Generator().manual_seed(5))
    rotated = network(bench, "rotated", *put(codes(0)[:, order], basis(2)), Formed("clip:other"), HOOKPOINT)
    half = codes(0).clone()
    half[:, D // 2 :] = codes(7)[:, D // 2 :]
    shared = network(bench, "shared", *put(half, basis(3)), Formed("clip:third"), "text.embedding")
    unrelated = network(bench, "unrelated", *put(codes(9), basis(4)), Formed("clip:last"), HOOKPOINT)
    return bench, [rotated, shared, unrelated]


def test_a_rotated_copy_has_all_counterparts_and_an_unrelated_one_none(made) -> None:
    bench, networks = made
    rotated, shared, unrelated = counterparts(bench, networks)["latents"]
    order = torch.randperm(D, generator=torch.Generator().manual_seed(5))
    assert torch.equal(order[rotated.partners.partner], torch.arange(D)) and rotated.found.all()
    assert rotated.partners.held_out.min() > 0.99
    assert shared.found[: D // 2].all() and not shared.found[D // 2 :].any()
    assert not unrelated.found.any() and 0 <= unrelated.bar < 0.9


def test_controls_are_held_to_the_same_bar_and_stay_below_latents(made) -> None:
    bench, networks = made
    found = counterparts(bench, networks[:1])
    (latents,), (neurons,), (random,) = found.values()
    assert latents.bar == neurons.bar == random.bar
    assert neurons.found.double().mean() < 0.5 and random.found.double().mean() < 0.5 < latents.found.double().mean()


def test_a_finding_counts_networks_and_draws_what_was_chosen(made, tmp_path: Path) -> None:
    bench, networks = made
    config = Config(dictionary="toy", store=tmp_path, others=("a", "b"), other_stores=(tmp_path,), n_typical=2)
    found = finding(bench, networks[:2], config)
    assert found.figures["latents: in 1 or more of 2"] == 1 and found.figures["latents: in 2 or more of 2"] == 0.5
    assert {row["latent"] for row in found.rows if row["found in"] == 2} == set(range(D // 2))
    assert {row["of"] for row in found.rows} == {2} and "Found in 2 of 2 networks: 50.0% of latents" in found.verdict
    found.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "universality.json").read_text())["about"]["others"]
    names = ("lab-universality", "lab-universality-shares")
    assert all((tmp_path / "out" / f"{name}.png").stat().st_size > 5000 for name in names)
    in_gallery = {row["latent"]: row["found in"] for row in found.pictures["lab-universality"].rows}
    assert all(n == (2 if latent < D // 2 else 1) for latent, n in in_gallery.items())
    cells = found.pictures["lab-universality"].draw().axes[0].get_xlabel()
    assert "found~in~2~of~2~networks" in cells, "the first row is the best, which both have"
    assert "more than neurons (" in found.verdict and "and random directions (" in found.verdict
    asked = finding(bench, networks[:1], Config(**{**vars(config), "latents": (3,), "others": ("a",)}))
    assert {row["latent"] for row in asked.pictures["lab-universality"].rows} == {3}
    with pytest.raises(EvaluationError, match=f"no latent {D}; .* has latents 0 to {D - 1}"):
        finding(bench, networks[:1], Config(**{**vars(config), "latents": (D,), "others": ("a",)}))


@pytest.mark.parametrize(
    ("subject", "hookpoint", "relation", "counted"),
    [
        (Formed("builtin:toy@1"), HOOKPOINT, "other seed", True),
        (Formed("builtin:toy-twice@0"), HOOKPOINT, "other training", True),
        (Formed("builtin:toy-4l@0", layers=4), HOOKPOINT, "other size", True),
        (Formed("builtin:toy@1", width=8), "visual.layer1.hook_post", "other size, other place", True),
        (Formed("clip:other", block="visual.blocks."), "visual.layer4", "other architecture, other place", True),
        (Formed("clip:other", of="GPTNeoX"), HOOKPOINT, "other architecture", True),
        (Formed("builtin:toy@1"), "text.embedding", "other seed, other tower", True),
        (Formed("builtin:toy@0"), "text.embedding", "other tower", True),
        (Formed("builtin:toy@0"), "visual.layer4", "same network, other place", False),
        (Formed("builtin:toy@0"), HOOKPOINT, "same network and place", False),
    ],
    ids=lambda one: getattr(one, "id", None),
)
def test_what_another_network_is_and_whether_it_counts(
    made, subject: Formed, hookpoint: str, relation: str, counted: bool
) -> None:
    found = network(made[0], "one", *put(codes(1), basis(1)), subject, hookpoint)
    assert (found.relation, found.counted) == (relation, counted)


def test_shares_count_networks() -> None:
    found = torch.tensor([[True, True, False], [True, False, False]])
    assert [share_of(found, n) for n in range(3)] == pytest.approx([1, 2 / 3, 1 / 3])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("universality")
    image_catalog(folder)
    return folder


def test_the_command_takes_neurons_and_dictionaries_of_any_grid(images: Path, tmp_path: Path) -> None:
    store = str(images / "store")
    settings = ["--dictionary", str(images / "dictionary"), "--store", store, "--out", str(tmp_path)]
    others = ["--others", str(images / "dictionary"), "neurons:visual.embedding", "--other-stores", store]
    assert cli.main(["lab", "universality", *settings, *others, "--n-typical", "1"]) == 0
    found = json.loads((tmp_path / "universality.json").read_text())
    (itself,) = [
        value
        for name, value in found["figures"].items()
        if name.endswith("(same network and place): latents, median r")
    ]
    assert itself == pytest.approx(1.0, abs=1e-6)
    assert all((tmp_path / f"lab-universality.{kind}").stat().st_size for kind in ("png", "pdf", "csv"))


def test_other_inputs_and_mismatched_settings_are_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="a store for each, or one for all; got 3 and 2"):
        Config(dictionary="d", store=tmp_path, others=("a", "b", "c"), other_stores=(tmp_path, tmp_path))
    with pytest.raises(ConfigError, match="at least one latent"):
        Config(dictionary="d", store=tmp_path, others=("a",), other_stores=(tmp_path,), n_best=0, n_typical=0)
    manifest = json.loads((images / "store" / "manifest.json").read_text())
    manifest["inputs"]["fingerprint"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    settings = ["--dictionary", str(images / "dictionary"), "--store", str(images / "store")]
    others = ["--others", "neurons:visual.embedding", "--other-stores", str(tmp_path)]
    assert cli.main(["lab", "universality", *settings, *others]) != 0
    assert "was harvested from inputs 0000" in capsys.readouterr().err
    others = ["--others", "neurons:visual.embeding", "--other-stores", str(images / "store")]
    assert cli.main(["lab", "universality", *settings, *others]) != 0
    assert "Did you mean 'visual.embedding'" in capsys.readouterr().err
