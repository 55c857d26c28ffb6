"""Changes at chosen positions: what is marked, what changes and what stays, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import N_CLASSES, OWN, PLACE, PlantedClip, bench, latent_of
from test_steer import dictionary, language
from tiny_clip import save_clip

from sae.errors import ConfigError
from sae.evaluation.toy_subjects import HOOKPOINT
from sae.lab.change.answers import NextTokens, generate
from sae.lab.change.doses import Bed, Steering
from sae.lab.change.interventions import Change, edits, latent_parts, vector_parts
from sae.lab.change.positions import ALL, FIRING, At, Span
from sae.subjects.load import load
from sae.tensors import Batch, Kind, Rows


def texts(*lengths: int, bos: bool = True) -> Rows:
    """Return rows of texts padded on the right, the first position of each a BOS."""
    keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    kind = torch.full(keep.shape, int(Kind.TOKEN), dtype=torch.uint8)
    kind[:, 0] = int(Kind.BOS) if bos else int(Kind.TOKEN)
    return Rows(keep=keep, kind=kind)


@given(st.integers(2, 9), st.data())
def test_numbers_and_ranges_mark_what_python_indexes(length: int, data: Any) -> None:
    bound = st.none() | st.integers(-12, 12)
    start, stop = data.draw(bound), data.draw(bound)
    number = data.draw(st.integers(-length, length - 1))
    rows, axis = texts(length, 12, bos=False), np.arange(length)
    for at, index in ((At((number,)), number), (At((Span(start, stop),)), slice(start, stop))):
        expected = np.zeros(length, dtype=bool)
        expected[axis[index]] = True
        if not expected.any() or not np.arange(12)[index].size:
            with pytest.raises(ConfigError, match="no position that may change"):
                at.mark(rows)
        else:
            marked = at.mark(rows)
            assert marked[0, :length].tolist() == expected.tolist() and not marked[0, length:].any()
            assert At.of(str(at)) == at


@given(st.integers(1, 8), st.integers(0, 6), st.data())
def test_fixed_positions_stay_where_they_are_as_a_text_grows(length: int, more: int, data: Any) -> None:
    number = data.draw(st.integers(-length, length - 1))
    start = data.draw(st.none() | st.integers(-length - 2, length - 1))
    stop = data.draw(st.none() | st.integers(-length - 2, length + 9))
    for one in (number, Span(start, stop)):
        at, rows = At((one,)), texts(length, bos=False)
        try:
            before = at.mark(rows)[0].tolist()
        except ConfigError:
            continue
        after = at.fixed(length).mark(texts(length + more, bos=False))[0].tolist()
        goes_on = isinstance(one, Span) and one.stop is None
        assert after == before + [goes_on] * more


def test_words() -> None:
    assert At.of("all") == ALL == At.of(("all",)) and At.of("firing") == FIRING
    assert At.of("3, -1 0:4,cls") == At((3, -1, Span(0, 4), "cls")) == At.of([3, "-1", "0:4", "cls"])
    assert At.of("firing -2:") == At((Span(-2, None),), firing=True) and str(At.of("firing -2:")) == "firing -2:"
    for wrong in ("tail", "3-1", "1.5", "0:4:2", "-", "1:x"):
        with pytest.raises(ConfigError, match=rf"at: '{wrong}' is no position; allowed: all, firing, cls, numbers"):
            At.of(wrong)
    with pytest.raises(ConfigError, match="all stands alone, got all 3"):
        At.of("all 3")
    with pytest.raises(ConfigError, match="nothing is given"):
        At.of(" ,")


@pytest.mark.parametrize(
    ("words", "rows", "message"),
    [
        ("9", texts(4), "at: 9 is no position that may change: there are 4, of which these may: 1 to 3, or -3 to -1"),
        ("0", texts(4), "of which these may: 1 to 3"),
        ("5:", texts(4), "at: 5: is no position"),
        ("5", texts(9, 4), "in example 1 of 2 there are 4"),
        ("cls", texts(4), "at: cls is no position"),
        ("-1", texts(1), "at: -1 is given, but there is no position that may change"),
    ],
)
def test_what_is_not_there_is_told(words: str, rows: Rows, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        At.of(words).mark(rows)


def test_no_bos_changes_within_a_range() -> None:
    assert At.of("0:2").mark(texts(3)).tolist() == [[False, True, False]] and At.of("0:").mark(texts(3)).sum() == 2


@pytest.mark.parametrize("kind", ["add", "clamp", "scale", "remove"])
@pytest.mark.parametrize("words", ["3 -1", "2:5", "-3:", "firing 1:9"])
def test_a_language_model_changes_there_as_under_a_hook_and_nowhere_else(kind: Any, words: str) -> None:
    subject, which = language(), dictionary()
    batch = subject.texts(3, 12)
    rows, parts, change = subject.rows(batch, "tokens"), latent_parts(which, [2]), Change(kind, 1.5, At.of(words))
    seen = {}

    def seeing(x: torch.Tensor) -> torch.Tensor:
        seen["x"] = edits(parts, change, HOOKPOINT, rows=rows)[HOOKPOINT](x)
        return seen["x"]

    def hook(x: torch.Tensor) -> torch.Tensor:
        places = {"3 -1": [3, 11], "2:5": [2, 3, 4], "-3:": [9, 10, 11], "firing 1:9": range(1, 9)}[words]
        out = x.clone()
        for example in range(len(x)):
            for place in places:
                (old,), _ = parts.read(x[example, place][None])
                new = {"add": old + 1.5, "clamp": torch.full_like(old, 1.5), "scale": 1.5 * old, "remove": -0.5 * old}
                if "firing" not in words or old != 0:
                    out[example, place] += (new[kind] - old) * which.W_dec[2]
        return out

    with torch.no_grad():
        found, naive, clean = (subject.forward(batch, {HOOKPOINT: one}) for one in (seeing, hook, lambda x: x))
    assert torch.allclose(found, naive, atol=1e-5)
    marked, x = change.at.mark(rows), subject.run(batch, [HOOKPOINT])[HOOKPOINT]
    assert torch.equal(seen["x"][~marked], x[~marked]) and torch.equal(found[~marked], clean[~marked])
    assert not torch.equal(seen["x"][marked], x[marked])


@pytest.mark.parametrize(
    ("architecture", "name", "places"),
    [
        ("vit", "visual.blocks.0.hook_resid_post", {"cls": 0, "-1": 16, "2": 2}),
        ("resnet", "visual.layer4.0.hook_post", {"0": 0, "3": 3}),
    ],
)
def test_one_position_of_an_image_tower_changes_alone(
    architecture: str, name: str, places: dict[str, int], tmp_path: Any
) -> None:
    subject: Any = load(f"clip:{save_clip(tmp_path, architecture)}")
    batch = Batch(first_example=0, images=torch.randint(0, 256, (2, 3, *subject.frame_size), dtype=torch.uint8))
    rows, x = subject.rows(batch, subject.hookpoints()[name].grid), subject.run(batch, [name])[name]
    direction = torch.randn(1, x.shape[-1], generator=torch.Generator().manual_seed(0))
    added = 5 * direction / direction.norm()
    for words, place in places.items():
        edit = edits(vector_parts(direction), Change("add", 5.0, At.of(words)), name, rows=rows)[name]
        after, others = edit(x), [one for one in range(x.shape[1]) if one != place]
        assert torch.equal(after[:, others], x[:, others])
        assert torch.allclose(after[:, place] - x[:, place], added, atol=1e-5)

        def hook(x: torch.Tensor, place: int = place) -> torch.Tensor:
            return torch.cat([x[:, :place], x[:, [place]] + added, x[:, place + 1 :]], dim=1)

        found, naive = (subject.forward(batch, {name: one}).image for one in (edit, hook))
        assert torch.allclose(found, naive, atol=1e-6) and not torch.allclose(found, subject.forward(batch).image)
    allowed = f"there are {x.shape[1]}, of which these may: 0 to {x.shape[1] - 1}"
    with pytest.raises(ConfigError, match=allowed + (".*, or cls" if "cls" in places else r".*end\.$")):
        At.of(str(x.shape[1])).mark(rows)


def test_a_cell_of_a_feature_map_that_holds_nothing_is_written_alone() -> None:
    found, subject = bench(), PlantedClip()
    batch = found.inputs.batch(0, N_CLASSES)
    bed = Bed(subject, None, batch, PLACE, PLACE, "add", At.of("2"))  # type: ignore[arg-type]
    own = Steering("own", latent_parts(found.dictionary, [latent_of(1)]), OWN)
    x = subject.run(batch, [PLACE])[PLACE]
    after = bed.edits(own, 2.0, batch)[PLACE](x)
    assert torch.equal(after[:, :2], x[:, :2])
    assert torch.allclose(after[:, 2], 2 * OWN * found.dictionary.W_dec[latent_of(1)].expand(N_CLASSES, -1))


@pytest.mark.parametrize(
    ("words", "expected"),
    [("-1", {2}), ("1:", {1, 2, 3, 4, 5}), ("-2:-1", {1}), ("1:9", {1, 2}), ("all", {1, 2, 3, 4, 5})],
)
def test_as_a_text_is_written_on_only_open_ranges_reach_new_tokens(words: str, expected: set[int]) -> None:
    subject, which, changed_at = language(), dictionary(), []
    prompt = subject.texts(1, 3)
    bed = Bed(subject, NextTokens(subject), prompt, HOOKPOINT, HOOKPOINT, "add", At.of(words)).writing()
    steering = Steering("latent 2", latent_parts(which, [2]), 1.0)

    def watched(text: Batch) -> dict[str, Any]:
        edit = bed.edits(steering, 2.0, text)[HOOKPOINT]

        def seeing(x: torch.Tensor) -> torch.Tensor:
            after = edit(x)
            changed_at.append({int(one) for one in (after != x).any(-1)[0].nonzero()[:, 0]})
            return after

        return {HOOKPOINT: seeing}

    assert len(generate(subject, prompt, watched, 4)) == 4
    assert changed_at == [{one for one in expected if one < length} for length in (3, 4, 5, 6)]
