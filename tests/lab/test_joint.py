"""Places in the joint space and boosts, beside what brute force gives."""

import pytest
import torch
import torch.nn.functional as F
from toy_joint import LAYER, NAMES, ToyPictures, bench

from sae.errors import EvaluationError
from sae.features.live.words import Words
from sae.lab.words.joint import JointSpace, attributed, before_selection, blank
from sae.tensors import Batch


def test_places_in_the_joint_space_itself_are_directions() -> None:
    space = JointSpace.of(bench())
    assert torch.equal(space.places([space.bench.latents])[0], space.bench.dictionary.W_dec)


def test_attributed_places_are_what_each_latent_writes_times_the_gradient() -> None:
    made = bench(LAYER, 24)
    subject, dictionary, batch = made.subject, made.dictionary, made.inputs.batch(0, 24)
    batches = [made.inputs.batch(0, 10), made.inputs.batch(10, 24)]
    latents, neurons = attributed(subject, LAYER, [dictionary, made.neurons.dictionary], batches)
    x = subject.run(batch, [LAYER])[LAYER]
    expected, expected_neurons = torch.zeros_like(latents), torch.zeros_like(neurons)
    for image in range(24):
        one = made.inputs.batch(image, image + 1)
        jacobian = torch.autograd.functional.jacobian(
            lambda y, one=one: subject.forward(one, {LAYER: lambda _: y}, grad=True).image[0], x[image : image + 1]
        )[:, 0]
        codes = dictionary.encode(x[image]).dense()
        for position in range(2):
            written = codes[position][:, None] * dictionary.W_dec
            expected += written @ jacobian[:, position].T / 24
            expected_neurons += torch.diag(x[image, position]) @ jacobian[:, position].T / 24
    torch.testing.assert_close(latents, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(neurons, expected_neurons, atol=1e-6, rtol=1e-4)


def test_the_path_points_where_a_latent_writes_and_covariance_where_its_images_are() -> None:
    made = bench(LAYER)
    space = JointSpace.of(made)
    for way in ("path", "covariance"):
        cosines = F.normalize(space.places([made.latents], way)[0], dim=1) @ space.words.directions.T
        assert cosines[:6].argmax(1).tolist() == list(range(6)), way


@pytest.mark.parametrize("hookpoint", ["visual.embedding", LAYER])
def test_boosting_sets_latents_of_a_blank_image_to_their_maximum(hookpoint: str) -> None:
    made = bench(hookpoint)
    space, subject, dictionary = JointSpace.of(made), made.subject, made.dictionary
    rises = space.rises(made.latents, [{2: 1.0}, {0: 1.0, 1: 0.5}])
    image = Batch(first_example=0, images=blank(subject, made.inputs))
    x = subject.run(image, [hookpoint])[hookpoint]
    codes, maximum = dictionary.encode(x[0]).dense(), made.latents.responses.maximum
    for row, group in enumerate(({2: 1.0}, {0: 1.0, 1: 0.5})):
        wanted = codes.clone()
        for latent, share in group.items():
            wanted[:, latent] = share * maximum[latent]
        changed = x + ((wanted - codes) @ dictionary.W_dec)[None]
        before, after = (subject.forward(image, {hookpoint: lambda _, y=y: y}).image[0] for y in (x, changed))
        torch.testing.assert_close(rises[row], (after - before) @ space.words.directions.T, atol=1e-5, rtol=1e-4)
    assert int(rises[0, :6].argmax()) == 2


def test_before_selection_is_the_largest_pre_activation_over_positions() -> None:
    made = bench(LAYER, 40)
    dictionary = made.dictionary
    pre = (made.sample.x - dictionary.b_dec) @ dictionary.W_enc + dictionary.b_enc
    expected = pre.view(40, 2, -1).amax(1)
    torch.testing.assert_close(before_selection(made.latents).columns(torch.arange(12)), expected)
    assert before_selection(made.neurons) is made.neurons.responses


def test_what_has_no_joint_space_is_refused() -> None:
    made = bench()
    object.__setattr__(made, "subject", type("Plain", (), {"id": "language:tiny"})())
    with pytest.raises(EvaluationError, match="language:tiny: has no space that images and texts share"):
        JointSpace.of(made)


def test_inputs_without_classes_are_refused() -> None:
    made = bench()
    plain = ToyPictures()
    plain.classes = None  # type: ignore[assignment]
    object.__setattr__(made, "inputs", plain)
    with pytest.raises(EvaluationError, match="name 0 classes"):
        JointSpace.of(made)


def test_a_dictionary_of_texts_is_refused() -> None:
    made = bench()
    made.dictionary.provenance["hookpoint"] = "text.embedding"
    subject = made.subject
    hookpoints = subject.hookpoints() | {"text.embedding": subject.hookpoints()["visual.embedding"]}  # type: ignore[operator]
    object.__setattr__(subject, "hookpoints", lambda: hookpoints)
    with pytest.raises(EvaluationError, match="rebuilds a hookpoint of the image tower"):
        JointSpace.of(made)


def test_words_know_their_names() -> None:
    assert JointSpace.of(bench()).words.names == list(NAMES)


def test_all_classes_have_a_word_however_many() -> None:
    made = bench()
    made.inputs.label_names = {"concept": tuple(f"class {n}" for n in range(2100))}  # type: ignore[attr-defined]
    assert len(JointSpace.of(made).words.names) == 2100
    assert len(Words(made.subject, made.inputs).names) == 2000
