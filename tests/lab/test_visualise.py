"""Ascents reach optima that are known, transformations do what they say, and a whole run says what it found."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_clip import save_clip
from torch import Tensor
from toy_sight import LAYER, LOWER, NAMES, PATTERNS, ToySight, bench

from sae.errors import ConfigError, DictionaryError, EvaluationError, InputsError
from sae.evaluation.sample import Units
from sae.features.building.known import raw_neurons
from sae.lab.visualise import method, transform
from sae.lab.visualise.chosen import Meanings
from sae.lab.visualise.facets import Facets, Labelled, Towards, lower
from sae.lab.visualise.judge import fitted
from sae.lab.visualise.optimise import Aim, Anchor, Ascent, Visualised, check_aim, likeness, reduced, visualise
from sae.lab.visualise.parametrise import Fourier, Natural, Pixels
from sae.lab.visualise.studio import Config, Studio
from sae.lab.workbench import Workbench
from sae.subjects.load import load
from sae.tensors import Batch

STILL = transform.chain(())


def natural(size: int = 8) -> Natural:
    return Natural.of((255 * torch.rand(8, 3, size, size, generator=draws())).byte())


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def of_two(frames: Tensor, label: Tensor) -> Labelled:
    return Labelled(frames, label, torch.ones(len(frames), dtype=torch.bool), ("dim", "bright"))


def climbed(units: list[int], ascent: Ascent, **more: object) -> Visualised:
    made = bench()
    aim = Aim(made.dictionary, LAYER, torch.tensor(units))
    return visualise(made.subject, aim, Pixels(natural(), len(units), draws()), ascent, **more)  # type: ignore[arg-type]


def test_the_optimum_of_a_linear_subject_is_found() -> None:
    found = climbed([0, 2], Ascent(STILL, steps=300, learning_rate=0.2, keep=3))
    made = bench()
    gradient = (made.dictionary.W_enc_rows[[0, 2]] @ ToySight().map).view(2, 3, 8, 8)
    best = (gradient > 0).float()
    assert ((found.pictures > 0.5) == (best == 1)).float().mean() > 0.99
    optimum = made.dictionary.W_enc_rows[[0, 2]] @ ToySight().map @ (best - 0.5).flatten(1).T
    torch.testing.assert_close(found.reached, optimum.diagonal(), rtol=0.05, atol=0)
    assert found.course.shape == (300, 2) and (found.course[-1] > found.course[0]).all()
    assert list(found.kept) == [0, 33, 133]


def test_what_is_kept_of_an_ascent_holds_no_graph() -> None:
    made = bench()
    made.dictionary.requires_grad_(True)
    aim = Aim(made.dictionary, LAYER, torch.tensor([0]))
    found = visualise(made.subject, aim, Pixels(natural(), 1, draws()), Ascent(STILL, steps=3, keep=2))
    assert not found.course.requires_grad and not any(one.requires_grad for one in found.kept.values())


def test_the_seed_is_enough_and_another_one_gives_other_pictures() -> None:
    shaken = transform.chain(
        (transform.jitter(1), transform.rotate(10), transform.scale(0.9, 1.1), transform.noise(0.1))
    )
    first, again, other = (climbed([1], Ascent(shaken, steps=20, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first.pictures, again.pictures)
    assert not torch.equal(first.pictures, other.pictures)


def test_an_anchor_holds_pictures_where_they_start() -> None:
    start = (0.2 + 0.6 * PATTERNS[:1]).contiguous()
    aim, still = Aim(bench().dictionary, LAYER, torch.tensor([1])), Ascent(STILL, steps=60)
    moved = [
        visualise(ToySight(), aim, Fourier(natural(), 1, draws(), start), still, anchor=anchor).pictures
        for anchor in (None, Anchor(start, LOWER, 100.0))
    ]
    free, held = ((one - start).norm() for one in moved)
    assert 0 < held < free / 2


def test_diversity_makes_pictures_of_one_unit_unlike() -> None:
    x = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[5.0, 5.0]]])
    group = torch.tensor([0, 0, 0, 1])
    assert likeness(x, group).tolist() == pytest.approx([0.5, 0.5, 0.0, 0.0])


def test_positions_are_pooled_as_asked() -> None:
    values = torch.tensor([[9.0, 1.0, 3.0, 2.0]])
    assert reduced(values, "max", prefix=1).item() == 3
    assert reduced(values, "mean", prefix=1).item() == 2
    assert reduced(values, 0, prefix=1).item() == 9
    with pytest.raises(EvaluationError, match="no position 4; allowed: 0 to 3"):
        reduced(values, 4)


def test_each_picture_is_asked_about_its_own_unit() -> None:
    made = bench()
    x = torch.randn(3, 2, 12, generator=draws())
    units = torch.tensor([4, 0, 4])
    expected = [
        made.dictionary.W_enc_rows[unit] @ (x[n].T - made.dictionary.b_dec[:, None]) for n, unit in enumerate(units)
    ]
    torch.testing.assert_close(Aim(made.dictionary, LAYER, units).pre_activation(x), torch.stack(expected))


def test_the_cosine_and_the_scale_multiply_values() -> None:
    made = bench()
    x = 3 * made.dictionary.W_enc_rows[:2].detach()[:, None] + 0.5
    plain = Aim(made.dictionary, LAYER, torch.tensor([0, 1]))
    scaled = Aim(made.dictionary, LAYER, torch.tensor([0, 1]), cosine=2.0, strong=torch.tensor([2.0, 4.0]))
    cosine = torch.nn.functional.cosine_similarity(x[:, 0], made.dictionary.W_enc_rows[:2])
    torch.testing.assert_close(scaled.values(x), plain.values(x) * cosine**2 / torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(scaled.reached(x), plain.values(x))


@pytest.mark.parametrize(
    "one",
    [
        transform.jitter(2),
        transform.rotate(20),
        transform.scale(0.8, 1.2),
        transform.noise(0.1),
        transform.colour(0.5),
        transform.overlay(torch.arange(27 * 192).view(9, 3, 12, 16).remainder(256).byte(), 0.5),
    ],
)
def test_transformations_keep_the_shape_and_give_every_picture_its_own_draw(one: transform.Transform) -> None:
    pictures = torch.rand(1, 3, 12, 16, generator=draws()).expand(4, -1, -1, -1)
    first = one(pictures, draws())
    assert first.shape == pictures.shape and not torch.equal(first, pictures)
    assert torch.equal(first, one(pictures, draws()))


def test_turning_and_moving_by_nothing_change_nothing() -> None:
    pictures = torch.rand(2, 3, 10, 14, generator=draws())
    still = transform.chain((transform.jitter(0), transform.rotate(0), transform.scale(1, 1), transform.pad(0)))
    torch.testing.assert_close(still(pictures, draws()), pictures, atol=1e-5, rtol=0)


def test_magnifying_twice_shows_the_middle() -> None:
    pictures = torch.zeros(1, 3, 8, 8)
    pictures[:, :, 2:6, 2:6] = 1
    assert (transform.scale(2, 2)(pictures, draws()) > 0.4).all()


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_gradients_reach_the_pixels_of_real_towers_and_come_by_lower_layers(kind: str, tmp_path: Path) -> None:
    subject = load(f"clip:{save_clip(tmp_path / kind, kind)}")
    size = subject.frame_size[0]  # type: ignore[attr-defined]
    frames = (255 * torch.rand(2, 3, size, size, generator=draws())).byte()
    names = [name for name in subject.hookpoints() if name.startswith("visual.")]
    seen = subject.see(frames.float() / 255, names)  # type: ignore[attr-defined]
    for name, x in subject.run(Batch(first_example=0, images=frames), names).items():
        torch.testing.assert_close(seen[name], x, atol=1e-5, rtol=1e-4)
    hookpoint = "visual.embedding"
    below = lower(subject, hookpoint)
    assert len(below) == 2 and all(name in names for name in below)
    aim = Aim(raw_neurons(subject.hookpoints()[hookpoint].d_in), hookpoint, torch.tensor([0, 5]))
    probe = Facets.learn(subject, below, of_two(frames.repeat(8, 1, 1, 1), torch.arange(16) % 2))
    term = probe.towards(torch.tensor([0, 1]), torch.tensor([1.0, 1.0]))
    plain, steered = (
        visualise(subject, aim, Fourier(Natural.of(frames), 2, draws()), Ascent(STILL, steps=15), one)
        for one in (None, term)
    )
    assert (plain.course[-1] > plain.course[0]).all()
    assert not torch.equal(plain.pictures[0], steered.pictures[0])
    assert not torch.equal(plain.pictures[1], steered.pictures[1])


def test_a_facet_pulls_as_hard_as_the_unit_and_only_where_the_unit_is_driven() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    values = (x * torch.tensor([2.0, -5.0, 0.0])).sum((1, 2))
    term = Towards({LOWER: torch.tensor([[1.0, 1.0, 1.0]])}, torch.tensor([0.5]))
    (pull,) = torch.autograd.grad(term.add(values, {LOWER: x}).sum(), x)
    assert pull[0, 0].tolist() == pytest.approx([0.5 * 29**0.5, 0.0, 0.0])


def test_units_are_labelled_by_what_drives_them_most() -> None:
    made = bench()
    concept, precision = Meanings(made).of(made.latents)
    assert concept[:4].tolist() == [0, 1, 2, 3] and (precision[:4] > 0.7).all()
    chosen = Meanings(made).choose(made.latents, 3)
    assert len(chosen) == 3 and torch.equal(chosen.numbers, chosen.concept)
    values = made.latents.responses.columns(chosen.numbers)
    assert chosen.strong[0] == values[:, 0][values[:, 0] > 0].quantile(0.99)
    examples = chosen.strongest(2)
    assert (examples % len(NAMES) == chosen.concept[:, None]).all() and not made.sample.match[examples].any()


def test_a_whole_run_says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    other = ToySight()
    other.id = "toy:other"
    monkeypatch.setattr("sae.lab.visualise.studio.load", lambda *_: other)
    config = Config(
        dictionary="toy", store=tmp_path, n_latents=3, ways=("pixel", "maco", "accentuate"), steps=100,
        facets=("bright",), judges=("toy:other",), n_pictures=60, kept=2, n_diverse=2, diversity=0.1,
    )  # fmt: skip
    found = method.run(config)
    assert found.figures["latents, pixel, toy:other, concept"] >= 2 / 3
    assert found.figures["latents, pixel, bright, toy:other, facet"] >= 2 / 3
    assert found.figures["real pictures, toy:sight, concept"] > 0.7
    latents = [row for row in found.rows if (row["units"], row["way"], row["facet"]) == ("latents", "pixel", "")]
    assert all(row["percentile"] > 0.4 for row in latents)
    assert {row["units"] for row in found.rows} == {"latents", "neurons", "random_directions"}
    assert "toy:other sees its concept as a bright in" in found.verdict
    found.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "visualise.json").read_text())["verdict"] == found.verdict
    latent = found.rows[0]["unit"].removeprefix("latent:")
    names = ("pixel", "pixel-2", "pixel-step-0", "pixel-step-25", "pixel-bright", "maco", "accentuate")
    for name in names:
        assert (tmp_path / "out" / f"latent-{latent}-{name}.png").is_file(), name
    steps = found.pictures["lab-visualise-steps"]
    course = [row["of_strong"] for row in steps.rows if row["unit"] == f"latent:{latent}"]
    assert len(course) == 64 and course[-1] > course[0]
    titles = [axes.get_title() for axes in steps.draw().axes]
    assert [title for title in titles if title.startswith(("step", "after"))] == ["step 0", "step 25", "after 100"]
    for name in ("lab-visualise", "lab-visualise-steps", "lab-facets"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5000


def test_units_and_subjects_that_are_not_there_are_refused(tmp_path: Path) -> None:
    made = bench()
    with pytest.raises(EvaluationError, match="no latent 6; allowed: 0 to 5"):
        check_aim(made.subject, Aim(made.dictionary, LAYER, torch.tensor([0, 6])))
    with pytest.raises(DictionaryError, match="has latents 0 to 5"):
        Meanings(made).given(made.latents, [9])
    language = load("builtin:stdlib-1l")
    with pytest.raises(EvaluationError, match="there are no pictures to optimise"):
        check_aim(language, Aim(raw_neurons(512), "blocks.0.mlp.hook_post", torch.tensor([0])))


def test_facets_and_pictures_that_are_not_there_are_refused(tmp_path: Path) -> None:
    settings = {"dictionary": "toy", "store": tmp_path, "n_pictures": 20}
    studio = Studio(bench(), Config(**settings))  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match=r"no facet 'brigt'.* Did you mean 'bright'"):
        studio.facets.number("brigt")
    with pytest.raises(EvaluationError, match=r"no labels 'facets'.* Did you mean 'facet'"):
        studio.labelled("facets")
    with pytest.raises(EvaluationError, match=r"pictures of \(10, 10\); toy:sight takes \(8, 8\)"):
        Studio(bench(size=10), Config(**settings))  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="need a layer below"):
        Studio(bench(hookpoint=LOWER), Config(**settings)).facets.number("dim")  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="there are pictures of 1"):
        Facets.learn(ToySight(), [LOWER], of_two(studio.frames, torch.zeros(len(studio.frames)).long()))


def test_facets_are_learnt_from_any_folder_of_pictures(tmp_path: Path) -> None:
    subject = load(f"clip:{save_clip(tmp_path / 'model', 'vit')}")
    for shade, name in ((40, "dim"), (220, "bright")):
        (tmp_path / "facets" / name).mkdir(parents=True)
        for n in range(8):
            Image.new("RGB", (40, 32), (shade + n,) * 3).save(tmp_path / "facets" / name / f"{n}.png")
    pictures = Labelled.folder(tmp_path / "facets", subject, 0)
    assert pictures.names == ("bright", "dim") and pictures.frames.shape == (16, 3, 32, 32)
    (probe, _) = Facets.learn(subject, lower(subject, "visual.embedding"), pictures).probes
    tried = pictures.on(~pictures.learnt)
    assert torch.equal(probe.answers(subject, tried.frames), tried.label)
    (tmp_path / "facets" / "dim" / "9.png").write_text("no picture")
    with pytest.raises(InputsError, match=r"9\.png: not an image that can be decoded"):
        Labelled.folder(tmp_path / "facets", subject, 0)


def test_judges_see_pictures_in_their_own_size() -> None:
    frames = torch.full((2, 3, 30, 20), 77, dtype=torch.uint8)
    assert torch.equal(fitted(ToySight(), frames), torch.full((2, 3, 8, 8), 77, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"facet_pictures": Path("facets")}, "facet_pictures: name the folders in it"),
        ({"ways": ("furier",)}, "unknown parametrisation 'furier'.* Did you mean 'fourier'"),
        ({"ways": ()}, "at least one"),
        ({"at": "left"}, "neither max nor mean"),
        ({"steps": 0}, "steps: must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(dictionary="toy", store=tmp_path, **setting)


def test_at_the_first_layer_accentuation_stays_near_the_pixels(tmp_path: Path) -> None:
    made = bench(hookpoint=LOWER)
    config = Config(dictionary="toy", store=tmp_path, steps=20, n_latents=2)
    studio, chosen = Studio(made, config), Meanings(made).choose(made.latents, 2)
    start = studio.weak(chosen)
    near = studio.made(chosen, "accentuate").pictures
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sae.lab.visualise.studio.STAY", 0.0)
        free = studio.made(chosen, "accentuate").pictures
    assert float((near - start).square().sum()) < float((free - start).square().sum())


def test_a_facet_that_half_precision_cannot_divide_by_adds_nothing() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]]]).half().requires_grad_(True)
    values = (x.float() * torch.tensor([2.0, 5.0, -1.0])).sum((1, 2))
    term = Towards({LOWER: torch.tensor([[0.0, 0.0, 1.0]])}, torch.tensor([0.5]))
    assert term.add(values, {LOWER: x}).tolist() == [0]
    large = torch.full((1, 300, 1024), 60.0).half().requires_grad_(True)
    term = Towards({LOWER: torch.ones(1, 1024)}, torch.tensor([1.0]))
    assert term.add(large.float().sum((1, 2)), {LOWER: large}).isfinite().all()


def test_latents_that_never_fire_are_left_out_and_refused_by_number() -> None:
    made = bench()
    made.dictionary.b_enc[1] = -10  # detects its concept as before, and is never selected
    assert Meanings(made).of(made.latents)[0][1] == 1
    numbers = Meanings(made).choose(made.latents, 4).numbers.tolist()
    assert {0, 2, 3} <= set(numbers) and 1 not in numbers
    with pytest.raises(EvaluationError, match="latents: 1 never fires on the 200 items"):
        Meanings(made).given(made.latents, [0, 1])


def test_a_control_of_which_nothing_stands_for_a_concept_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = Meanings.of

    def none_of_controls(meanings: Meanings, units: Units) -> tuple[torch.Tensor, torch.Tensor]:
        concept, precision = of(meanings, units)
        return (concept if units.name == "dictionary" else torch.full_like(concept, -1)), precision

    monkeypatch.setattr(Meanings, "of", none_of_controls)
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    other = ToySight()
    other.id = "toy:other"
    monkeypatch.setattr("sae.lab.visualise.studio.load", lambda *_: other)
    found = method.run(
        Config(
            dictionary="toy",
            store=tmp_path,
            n_latents=2,
            ways=("pixel",),
            steps=2,
            n_pictures=40,
            judges=("toy:other",),
        )
    )
    assert {row["units"] for row in found.rows} == {"latents"}
    assert found.verdict.endswith("None of the neurons and none of the random directions stands for a concept.")
    assert "toy:other sees its concept in" in found.verdict
