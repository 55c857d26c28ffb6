"""Words across pictures: where they stand, what they cover, and what the concept world says of them."""

import numpy as np
import pytest

from sae.errors import ConfigError, InputsError
from sae.inputs.concepts import ConceptInputs, World
from sae.inputs.configs import ConceptInputsConfig
from sae.inputs.writing import DARK, LIGHT, Writing, write


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=0, size=64)


def grey(side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), 128, np.uint8)


def test_only_covered_pixels_change():
    picture = grey()
    written, covered = write(picture, Writing(word="owl", width=0.5, height=0.3))
    assert (written[~covered] == picture[~covered]).all()
    assert covered.any() and not covered.all()
    assert (picture == 128).all()


def test_plate_and_ink_change_places_with_dark():
    for dark, (ink, plate) in ((True, (DARK, LIGHT)), (False, (LIGHT, DARK))):
        written, covered = write(grey(), Writing(word="owl", dark=dark))
        seen = {tuple(pixel) for pixel in written[covered]}
        assert ink in seen and plate in seen


def test_without_a_plate_less_is_covered():
    with_plate = write(grey(), Writing(word="owl"))[1]
    without = write(grey(), Writing(word="owl", plate=False))[1]
    assert without.sum() < with_plate.sum()


@pytest.mark.parametrize("corner", [(-1, -1), (1, 1), (-1, 1)])
def test_a_word_stays_inside_the_picture(corner: tuple[float, float]):
    middle = write(grey(), Writing(word="octopus", width=0.6, height=0.3, x=0, y=0))[1]
    moved = write(grey(), Writing(word="octopus", width=0.6, height=0.3, x=corner[0], y=corner[1]))[1]
    assert moved.sum() == middle.sum()
    rows, columns = np.nonzero(moved)
    assert (columns.mean() < 32) == (corner[0] < 0) and (rows.mean() < 32) == (corner[1] < 0)


def test_bad_writing_is_refused():
    with pytest.raises(InputsError, match="no word"):
        Writing(word=" ")
    with pytest.raises(InputsError, match="serif"):
        Writing(word="owl", font="seriff")
    with pytest.raises(InputsError, match="width is a share"):
        Writing(word="owl", width=1.5)
    with pytest.raises(ConfigError, match="written"):
        ConceptInputsConfig(written=2)
    with pytest.raises(InputsError, match="written"):
        ConceptInputs(World(), "score", 1, written=-0.1)


def test_nothing_changes_unless_asked_for(world: World):
    plain, marked = ConceptInputs(world, "score", 8), ConceptInputs(world, "score", 8, written=0.5)
    assert "written" not in plain.label_names and "written" not in plain.describe()
    assert plain.fingerprint != marked.fingerprint
    untouched = [i for i in range(8) if marked.across(marked.scene(i)) is None]
    assert untouched
    for i in untouched:
        assert (plain.batch(i, i + 1).images == marked.batch(i, i + 1).images).all()


def test_labels_masks_and_captions_tell_what_is_written(world: World):
    inputs = ConceptInputs(world, "subject", 400, written=0.6)
    labels = inputs.labels(0, 400)
    names = inputs.label_names["written"]
    told = own = 0
    for i, number in enumerate(labels["written"]):
        scene = inputs.scene(i)
        across = inputs.across(scene)
        assert (across is None) == (number == -1)
        if across is None:
            continue
        assert names[number] == across.writing.word
        assert "word" not in world.concept(across.writing.word).held_out_facets
        assert scene.facet != "word"
        own += across.writing.word == scene.concept
        if across.named:
            told += 1
            assert across.writing.word in inputs.caption(scene)
        masks = inputs.masks(i, i + 1, (64, 64))[0]
        text, concept = (masks[:, inputs.mask_names.index(name)] for name in ("text", "concept"))
        assert text.max() == 1 and (concept[text == 1] == 0).all()
    n = int((labels["written"] >= 0).sum())
    assert 0.3 < n / 400 < 0.6 and 0.35 < told / n < 0.65 and 0.1 < own / n < 0.4
