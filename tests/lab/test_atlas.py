"""An atlas whose places, labels and pictures are known."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_joint import LAYER, bench

from sae.errors import ConfigError, EvaluationError
from sae.lab.atlas import atlas as method
from sae.lab.atlas.atlas import Config, names_of, nearest_picture, one_row_each
from sae.lab.atlas.cells import Agreement, Atlas
from sae.lab.atlas.picture import mosaic
from sae.lab.workbench import Workbench


def grid(n: int = 6, each: int = 4) -> Atlas:
    """Lay `each` items into each cell of an n by n grid; their vectors are their column and row."""
    column, row = (
        one.flatten().repeat_interleave(each) for one in torch.meshgrid(*[torch.arange(n)] * 2, indexing="xy")
    )
    place = torch.stack([column, row], 1).double().numpy()
    return Atlas.placed(torch.stack([column, row], 1).float(), place, n, 2)


def test_cells_hold_their_items_and_average_them() -> None:
    made = grid()
    assert len(made.cells) == 36 and made.cells[7].tolist() == [1, 1]
    assert made.members(7).tolist() == list(range(28, 32))
    torch.testing.assert_close(made.averaged(made.x), made.cells.double())
    assert len(made.neighbours) == 2 * 6 * 5
    pairs = made.cells[made.neighbours]
    assert ((pairs[:, 0] - pairs[:, 1]).abs().sum(1) == 1).all()


def test_cells_with_too_few_items_are_left_out() -> None:
    place = np.array([[0.0, 0.0], [0.1, 0.0], [1.0, 1.0]])
    made = Atlas.placed(torch.eye(3), place, 2, 2)
    assert made.cells.tolist() == [[0, 0]] and made.cell.tolist() == [0, 0, -1]


def test_neighbours_agree_where_labels_lie_together_and_not_by_chance() -> None:
    made = grid()
    halves = Agreement.of(made, (made.column >= 3).long(), 0)
    assert halves is not None
    # 6 of the 60 borders between cells separate the halves.
    assert halves.beside == pytest.approx(54 / 60) and halves.inside == 1
    assert halves.base == pytest.approx((72 * 71 * 2) / (144 * 143))
    assert halves.beside > float(halves.shuffled.max())
    dealt = Agreement.of(made, torch.randint(2, (144,), generator=torch.Generator().manual_seed(0)), 0)
    assert dealt is not None
    low, high = dealt.figures("luck")["luck, shuffled, low"], dealt.figures("luck")["luck, shuffled, high"]
    assert low <= dealt.beside <= high


def test_items_without_a_label_take_no_part() -> None:
    made = grid()
    labels = torch.where(made.row == 0, made.column % 2, -1)
    found = Agreement.of(made, labels, 0)
    assert found is not None and found.beside == 0 and found.inside == 1
    assert Agreement.of(made, torch.where((made.row == 0) & (made.column == 0), 0, -1), 0) is None


def test_pictures_lie_where_their_cells_do_with_y_upwards() -> None:
    frames = [np.full((2, 3, 3), value, dtype=np.uint8) for value in (10, 20)]
    whole = mosaic(np.array([[0, 0], [1, 1]]), frames, 2)
    assert whole.shape == (4, 6, 3)
    assert (whole[2:, :3] == 10).all() and (whole[:2, 3:] == 20).all() and (whole[:2, :3] == 255).all()


def test_one_row_of_every_item_is_taken() -> None:
    sample = bench(LAYER).sample
    rows = one_row_each(sample, 300, 0)
    assert sample.item[rows].tolist() == list(range(300))
    assert set(sample.rows.position[rows].tolist()) == {0, 1}


def test_the_nearest_picture_is_shown_or_the_nearest_averaged() -> None:
    made = bench()
    atlas = Atlas.placed(made.sample.x.float(), np.zeros((400, 2)), 2, 2)
    members, example = torch.arange(16), made.sample.example
    mean = atlas.x[5]
    assert nearest_picture(made, atlas, example)(mean, members)[0, 0].tolist() == [5, 5, 0]
    both = nearest_picture(made, atlas, example, 2)(mean, members)[0, 0].tolist()
    assert both == [5, 9, 0], "the other picture of an owl is example 13"


def test_a_whole_run_shows_latents_labels_and_any_render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    seen = []

    def render(mean: torch.Tensor, members: torch.Tensor) -> np.ndarray:
        seen.append(len(members))
        return np.full((4, 4, 3), len(seen), dtype=np.uint8)

    config = Config(dictionary="toy", store=tmp_path, n_items=240, n_cells=6)
    found = method.run(config, render)
    assert len(seen) == len(found.rows) == found.figures["cells"]
    assert found.figures["concept, within a cell"] > found.figures["concept, any two items"]
    of_owls = [row for row in found.rows if row["concept"] == "owl" and row["concept_share"] == 1]
    assert of_owls and all(row["names"].startswith("concept=owl") for row in of_owls)
    assert names_of(bench().latents)[4:6] == ["concept=big", "concept=owl"], "no mixture holds these two"
    found.save(tmp_path / "out")
    with Image.open(BytesIO((tmp_path / "out" / "atlas-rendered.png").read_bytes())) as image:
        assert image.size == (24, 24)
    assert (tmp_path / "out" / "lab-atlas.png").stat().st_size > 5000


def test_settings_without_sense_and_empty_grids_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="n_cells"):
        Config(dictionary="toy", store=tmp_path, n_cells=1)
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    with pytest.raises(EvaluationError, match="0 cells hold 500 items"):
        method.run(Config(dictionary="toy", store=tmp_path, n_items=240, fewest=500))
