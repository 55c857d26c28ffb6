"""Directions: read from files, made of labels, and how much of them a dictionary has."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_catalog import POOLED, TEXT, WIDTH, TinyInputs, tiny_dictionary, tiny_store

from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.dictionaries.codes import Codes
from sae.dictionaries.linear import Directions
from sae.errors import CatalogError
from sae.evaluation.gather import take_sample
from sae.features.building.build import build
from sae.features.building.catalog_config import CatalogConfig
from sae.features.building.directions import Sources, logistic_probe, of_label
from sae.features.building.evidence import Amounts
from sae.features.catalog import Catalog
from sae.features.sections.carried import Carried
from sae.server.export import pointers


class LabelledInputs(TinyInputs):
    """Says of every token whether its number is even."""

    bookkeeping: ClassVar[tuple[str, ...]] = ()
    label_names: ClassVar[dict[str, tuple[str, ...]]] = {"parity": ("odd", "even")}
    classes = None

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        found = np.full((stop - start, 12), -1)
        for row, example in enumerate(range(start, stop)):
            tokens = self.tokens(example)
            found[row, : len(tokens)] = tokens % 2 == 0
        return {"parity": found}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[ActivationStore, Any, LabelledInputs]:
    found, subject, _ = tiny_store(tmp_path_factory.mktemp("language"), "language")
    return found, subject, LabelledInputs("language")


@pytest.fixture(scope="module")
def sample(store: Any) -> Any:
    return take_sample(store[0].vectors(TEXT), store[2], 10_000, 0)


def written(path: Path, **tensors: torch.Tensor) -> str:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return str(path)


def made(store: Any, out: Path, *directions: str, **changes: Any) -> Catalog:
    dictionary = tiny_dictionary(store[0], TEXT)
    few = Amounts(top=4, quantiles=3, levels=2, each=1, random=3, near=2, held_out=4)
    given: dict[str, Any] = {"dictionary": "tiny", "store": store[0].path, "out": out, "examples": few, "map": False}
    settings = CatalogConfig(**given, directions=directions, neurons=False, near_vectors=64, context=3, **changes)
    return build(dictionary, store[0], settings, store[1], store[2])


def test_cards_of_directions_are_those_of_units_along_them(store: Any, tmp_path: Path) -> None:
    vectors = store[0].vectors(TEXT, TRAINING_KINDS)
    dictionary = tiny_dictionary(store[0], TEXT)
    rows = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))
    path = written(tmp_path / "mine.safetensors", both=rows, first=5 * dictionary.W_dec[3].detach())
    catalog = made(store, tmp_path / "catalog", path, "label:parity=even")
    titles = ["both 0", "both 1", "first", "parity=even: difference of means", "parity=even: logistic probe"]
    assert [card.title for card in catalog.directions] == titles == [title for title, _ in catalog.directions.words]
    assert catalog.about.counts["directions"] == 5 and len(catalog.directions.column("rate")) == 5
    x = vectors.read(0, len(vectors)).float()
    along = (x - x.mean(0)) @ rows[1] / rows[1].norm()
    statistics = catalog.directions[1]["statistics"]
    assert statistics["max"] == pytest.approx(float(along.max()), rel=0.01)
    assert statistics["rate"] == pytest.approx(float((along > 0).float().mean()), abs=0.01)
    near = catalog.directions[2]["neighbours"]
    assert near["decoder"][0] == [3, pytest.approx(1.0, abs=1e-3)] and set(near) == {"decoder", "encoder"}
    carried = catalog.directions[2]["carried"]
    assert {index for kind, index in pointers(catalog.directions[2]) if kind == "latent"} >= {
        latent for latent, _ in carried["latents"]
    }
    probe = catalog.directions[4]
    assert probe["scores"]["label_auc"]["value"] > 0.9 and probe["labels"][0]["label"] == "parity=even"
    assert "scores" not in catalog.directions[2].sections


def test_a_file_that_changed_needs_another_catalog(store: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "mine.safetensors", one=torch.ones(WIDTH))
    finished = made(store, tmp_path / "catalog", path)
    assert made(store, tmp_path / "catalog", path).about == finished.about
    written(tmp_path / "mine.safetensors", one=-torch.ones(WIDTH))
    with pytest.raises(CatalogError, match="choose another folder"):
        made(store, tmp_path / "catalog", path)


def test_a_wrong_label_leaves_nothing_behind(store: Any, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"label:parity=evn: no such label\. Did you mean 'parity=even'"):
        made(store, tmp_path / "catalog", "label:parity=evn")
    assert made(store, tmp_path / "catalog", "label:parity=even").about.complete


def test_a_store_without_labels_says_so(tmp_path: Path) -> None:
    found = tiny_store(tmp_path / "clip", "clip")
    settings = CatalogConfig(dictionary="t", store=found[0].path, out=tmp_path / "out", directions=("label:a=b",))
    with pytest.raises(CatalogError, match="label:a=b: the inputs of this store have no labels"):
        build(tiny_dictionary(found[0], POOLED), found[0], settings, found[1], found[2])


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(WIDTH + 1), rf"one is \[{WIDTH + 1}\] of float32; a direction here is \[{WIDTH}\]"),
        (torch.ones(2, 2, WIDTH), r"one is \[2, 2, 6\]"),
        (torch.ones(WIDTH, dtype=torch.int64), "of int64"),
        (torch.eye(WIDTH)[:2] * torch.tensor([[1.0], [0.0]]), "one 1 is zero"),
        (torch.full((WIDTH,), torch.nan), "one holds NaN or infinite"),
    ],
)
def test_what_is_no_direction(tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
    path = written(tmp_path / "bad.safetensors", one=tensor)
    with pytest.raises(CatalogError, match=message):
        Sources.read([path], WIDTH)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="nowhere: cannot be read as safetensors"):
        Sources.read([str(tmp_path / "nowhere")], WIDTH)
    with pytest.raises(CatalogError, match="a label is named label:FAMILY=VALUE"):
        Sources.read(["parity=even"], WIDTH)
    (tmp_path / "text.safetensors").write_text("none")
    with pytest.raises(CatalogError, match="cannot be read as safetensors"):
        Sources.read([str(tmp_path / "text.safetensors")], WIDTH)
    with pytest.raises(CatalogError, match="holds no tensor"):
        Sources.read([written(tmp_path / "empty.safetensors")], WIDTH)


def test_the_difference_of_means_knows_one_half_alone(sample: Any) -> None:
    difference, probe = of_label("parity=even", sample)
    number = sample.table.names.index("parity=even")
    even = sample.table.columns[:, number]
    x = sample.x.float()
    naive = x[sample.match & even].mean(0) - x[sample.match & ~even].mean(0)
    cosine = torch.nn.functional.cosine_similarity(difference.vector, naive, dim=0)
    assert cosine == pytest.approx(1, abs=1e-4) and difference.label == probe.label == number


def test_a_probe_finds_what_separates_rather_than_what_differs() -> None:
    generator = torch.Generator().manual_seed(0)
    positive = torch.rand(4000, generator=generator) < 0.2
    x = torch.randn(4000, 2, generator=generator) * torch.tensor([0.2, 5.0])
    x[positive] += torch.tensor([0.6, 1.5])
    weights = torch.nn.functional.normalize(logistic_probe(x, positive), dim=0)
    assert weights[0] > 0.99


def planted(n_rows: int = 4000) -> tuple[torch.Tensor, Codes, torch.Tensor]:
    """Vectors whose first coordinate is twice latent 2 less latent 5 and some noise; another latent is rare."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(n_rows, 8, generator=generator) * (torch.rand(n_rows, 8, generator=generator) < 0.3)
    codes[:, 7] = 0
    codes[:5, 7] = 100.0
    x = torch.randn(n_rows, 4, generator=generator)
    x[:, 0] = 2 * codes[:, 2] - codes[:, 5] + 0.1 * x[:, 0]
    return x, Codes.from_dense(codes), torch.arange(n_rows) % 2 == 0


def test_carriers_are_found_in_order_with_their_share_on_the_other_half() -> None:
    x, codes, match = planted()
    directions = Directions.of(torch.eye(4)[:2], x.mean(0))
    first, second = Carried(directions.W_dec, x, codes, match, n=3).of(range(2))
    assert first is not None and second is not None
    assert [latent for latent, _ in first["latents"][:2]] == [2, 5]
    dense, rest = codes.dense()[:, [2, 5]].double(), ~match
    columns = torch.cat([dense, torch.ones(len(dense), 1)], 1)
    weights = torch.linalg.lstsq(columns[match], x[match, :1].double()).solution
    missed = (x[rest, :1].double() - columns[rest] @ weights).square().sum()
    expected = 1 - missed / (x[rest, 0] - x[rest, 0].mean()).double().square().sum()
    assert first["latents"][1][1] == pytest.approx(float(expected), rel=1e-3) and float(expected) > 0.9
    assert abs(second["latents"][2][1]) < 0.02, "noise is carried by nothing"
    assert len(first["control"]) == 3 and first["control"][0] < first["latents"][0][1]
    assert all(latent != 7 for latent, _ in second["latents"]), "fires too rarely to be chosen"


def test_a_direction_along_which_nothing_varies_is_carried_by_nothing() -> None:
    x, codes, match = planted()
    x[:, 1] = 3.0
    directions = Directions.of(torch.eye(4)[1:2], x.mean(0))
    assert Carried(directions.W_dec, x, codes, match).of(range(1)) == [None]


def test_units_of_directions_answer_from_the_centre() -> None:
    units = Directions.of(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 1.0]))
    assert units.encode(torch.tensor([[1.0, 1.0], [4.0, 5.0]])).dense().tolist() == [[0.0], [5.0]]
