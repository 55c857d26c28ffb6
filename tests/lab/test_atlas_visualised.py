"""Visualised cells of an atlas: what a picture is seen as is what the subject says of the picture that is kept."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toy_sight
from PIL import Image
from toy_joint import bench as joint_bench

from sae.errors import ConfigError, EvaluationError
from sae.lab.atlas import atlas as method
from sae.lab.atlas.atlas import Config
from sae.lab.atlas.cells import Atlas
from sae.lab.atlas.visualised import Easel, Seen, judged, leading, said, visualised
from sae.lab.visualise import studio as visualise
from sae.lab.visualise.studio import Studio
from sae.lab.workbench import Workbench
from sae.tensors import Batch

SETTINGS = {"dictionary": "toy", "store": Path("toy")}


def studio(steps: int = 40, cosine: float = 1.0) -> Studio:
    config = visualise.Config(**SETTINGS, ways=("fourier",), at="mean", steps=steps, cosine=cosine, n_pictures=100)
    return Studio(toy_sight.bench(), config)


def patterns() -> Atlas:
    """Lay the toy's items out by what they show: one cell for each pattern."""
    x = toy_sight.bench().sample.x
    number = torch.arange(len(x)) % len(toy_sight.NAMES)
    return Atlas.placed(x, torch.stack([number % 2, number // 2], 1).double().numpy(), 2, 2)


def test_figures_of_pictures_say_where_their_vectors_fall() -> None:
    cosines = torch.tensor([[0.9, 0.1, 0.3], [0.8, 0.5, 0.1], [0.2, 0.1, 0.4]])
    seen = Seen("visualised", torch.zeros(3, 3, 1, 1, dtype=torch.uint8), torch.arange(3), cosines)
    figures = seen.figures()
    assert seen.nearest.tolist() == [0, 0, 2]
    assert figures["visualised, nearest to its own"] == pytest.approx(2 / 3)
    assert figures["visualised, nearest to its own, low"] < 2 / 3 < figures["visualised, nearest to its own, high"]
    assert figures["visualised, cosine to its own"] == pytest.approx((0.9 + 0.5 + 0.4) / 3)
    assert figures["visualised, pictures"] == 3


def test_the_label_of_half_of_the_items_leads_in_a_cell() -> None:
    place = np.repeat([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], 4, axis=0)
    atlas = Atlas.placed(torch.eye(16), place, 2, 2)
    labels = torch.tensor([5, 5, 1, 2] + [5, 1, 2, 3] + [-1] * 4 + [7, 7, -1, -1])
    assert leading(atlas, labels).tolist() == [5, -1, -1, 7]


def test_a_cell_is_drawn_as_what_its_items_show_and_the_controls_beside() -> None:
    atlas, made = patterns(), studio()
    nearest = (255 * toy_sight.PATTERNS).to(torch.uint8)
    seen = visualised(made, atlas, nearest, 0)
    assert [one.name for one in seen] == ["visualised", "nearest picture", "shuffled cells", "random directions"]
    drawn, real, shuffled, random = seen
    assert drawn.nearest.tolist() == real.nearest.tolist() == [0, 1, 2, 3]
    assert float(drawn.own_cosine.min()) > 0.9
    assert sorted(shuffled.own.tolist()) == sorted(random.own.tolist()) == [0, 1, 2, 3]
    # Blocks that are light in a pattern are lighter than the others in its picture.
    light = toy_sight.PATTERNS > 0.5
    frames = drawn.frames.float()
    assert all(frames[n][light[n]].mean() > frames[n][~light[n]].mean() + 30 for n in range(4))
    figures = {name: value for one in seen for name, value in one.figures().items()}
    judge = {"visualised, toy sees the concept": 0.5, "visualised, toy sees another cell's": 0.25}
    told = said(figures | judge)
    assert "mean in 100% (nearest real picture 100%; visualisations of shuffled cells" in told
    assert told.endswith(" toy sees the cell's concept in 50% (another cell's in 25.0%).")


def test_judges_are_asked_for_the_concept_that_leads_and_for_those_of_other_cells() -> None:
    made = studio()
    frames = (255 * toy_sight.PATTERNS[[0, 1, 2, 2]]).to(torch.uint8)
    seen = Seen("visualised", frames, torch.arange(4), torch.eye(4))
    figures = judged(made, [seen], torch.tensor([0, 1, 3, -1]))
    assert figures["cells with a concept"] == 3
    assert figures["visualised, toy:sight sees the concept"] == pytest.approx(2 / 3)
    assert figures["visualised, toy:sight sees another cell's"] == 0
    assert judged(made, [seen], torch.tensor([1, 1, -1, -1])) == {}, "there is no other concept to compare with"


def test_the_mean_is_taken_over_patches_alone() -> None:
    made = studio()
    made.__dict__["prefix"] = 1
    made.sees = type("Towers", (), {"see": lambda self, pictures, names: {names[0]: pictures.flatten(2).mT}})()  # type: ignore[assignment]
    frames = torch.tensor([255, 0, 0, 51, 102, 0, 0, 0, 255], dtype=torch.uint8).view(1, 3, 3, 1)
    seen = Easel(made, torch.zeros(3)).look("x", frames, torch.eye(3), torch.tensor([0]))
    expected = F.normalize(torch.tensor([0.0, 51.0, 127.5]), dim=0)
    torch.testing.assert_close(seen.cosines[0], expected)


@pytest.mark.parametrize("cosine", [1.0, 2.0])
def test_a_power_of_the_cosine_leaves_pictures_no_greyer(cosine: float) -> None:
    """Smoothness is weighed like the values, which such a power makes small at the start."""
    atlas = patterns()
    contrast = []
    for power in (0.0, cosine):
        easel = Easel(studio(cosine=power), atlas.x.mean(0))
        directions = atlas.averaged(atlas.x).float() - easel.centre
        contrast.append(float(easel.draw("x", directions, torch.arange(4)).frames.float().std()))
    assert contrast[1] > 0.8 * contrast[0]


def test_a_whole_run_keeps_both_ways_and_tells_the_truth_of_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = toy_sight.bench()
    monkeypatch.setattr(Workbench, "open", lambda config: bench)
    place = np.random.default_rng(0).random((len(bench.sample.x), 2))
    atlas = Atlas.placed(bench.sample.x, place, 3, 2)
    monkeypatch.setattr(Atlas, "of", lambda *args: atlas)
    found = method.run(Config(**SETTINGS, picture="visualised", n_cells=3, fewest=2, steps=30))
    assert set(found.images) == {"atlas-visualised", "atlas-nearest"}
    assert set(found.pictures) == {"lab-atlas-visualised", "lab-atlas"}
    assert found.figures["cells along a side"] == 3 and found.figures["visualised, pictures"] == len(found.rows)
    with Image.open(BytesIO(found.images["atlas-visualised"])) as image:
        whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    size, frames = toy_sight.SIZE, []
    for row in found.rows:
        top, left = (2 - row["y"]) * size, row["x"] * size
        frames.append(whole[:, top : top + size, left : left + size])
    batch = Batch(first_example=0, images=torch.stack(frames))
    centre = atlas.x.mean(0)
    x = bench.subject.run(batch, [toy_sight.LAYER])[toy_sight.LAYER][:, 0] - centre
    cosines = F.cosine_similarity(x[:, None], (atlas.averaged(atlas.x).float() - centre)[None], dim=2)
    nearest = atlas.cells[cosines.argmax(1)].tolist()
    assert [row["visualised_cell"] for row in found.rows] == [f"{column} {row}" for column, row in nearest]
    assert [row["visualised_cosine"] for row in found.rows] == pytest.approx(cosines.diagonal().tolist(), abs=1e-3)
    same = [row["visualised_cell"] == f"{row['x']} {row['y']}" for row in found.rows]
    assert np.mean(same) == pytest.approx(found.figures["visualised, nearest to its own"])
    found.save(tmp_path)
    assert (tmp_path / "lab-atlas-visualised.png").stat().st_size > 5000


def test_what_has_no_gradient_or_no_steps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="steps"):
        Config(**SETTINGS, steps=0)
    monkeypatch.setattr(Workbench, "open", lambda config: joint_bench())
    with pytest.raises(EvaluationError, match="no pictures to optimise"):
        method.run(Config(**SETTINGS, picture="visualised"))
