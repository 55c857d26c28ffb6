import pytest
import torch
from tiny_clip import save_clip

from sae import builtin
from sae.errors import ConfigError, SubjectError
from sae.inputs.source import ConceptInputsConfig, StdlibInputsConfig, builtin_inputs
from sae.subjects.load import load
from sae.subjects.untrained import dead_leaves
from sae.tensors import Batch


@pytest.fixture(scope="module")
def resnet_folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip") / "resnet", "resnet")


def weights(subject):
    return dict(subject.model.state_dict())


def test_a_language_model_is_drawn_anew_and_always_the_same(tiny_gpt2_folder):
    trained, first = load(f"language:{tiny_gpt2_folder}"), load(f"untrained:language:{tiny_gpt2_folder}")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    second = load(f"untrained:language:{tiny_gpt2_folder}")
    assert torch.equal(torch.get_rng_state(), before), "loading used up random numbers"
    assert first.id == f"untrained:language:{tiny_gpt2_folder.resolve()}"
    assert all(torch.equal(tensor, weights(second)[name]) for name, tensor in weights(first).items())
    assert not torch.equal(weights(first)["transformer.wte.weight"], weights(trained)["transformer.wte.weight"])
    hashes = [subject.provenance()["weights_sha256"] for subject in (trained, first, second)]
    assert hashes[1] == hashes[2] != hashes[0]
    assert first.hookpoints() == trained.hookpoints()
    assert first.tokenizer.get_vocab() == trained.tokenizer.get_vocab()
    # GPT-2 initialises with a deviation of 0.02, and its biases with zeros.
    assert float(weights(first)["transformer.wte.weight"].std()) == pytest.approx(0.02, rel=0.1)
    assert not weights(first)["transformer.h.0.mlp.c_fc.bias"].any()
    logits = first.forward(Batch(first_example=0, tokens=torch.arange(8)[None]))
    assert logits.isfinite().all() and first.predicts_next_token


def test_another_dtype_has_the_same_weights(tiny_gpt2_folder):
    single, half = (load(f"untrained:language:{tiny_gpt2_folder}", dtype=dtype) for dtype in ("float32", "bfloat16"))
    for name, tensor in weights(single).items():
        assert torch.equal(tensor.bfloat16(), weights(half)[name])


def test_a_clip_model_is_drawn_anew_and_always_the_same(resnet_folder):
    trained, first, second = (load(f"{prefix}clip:{resnet_folder}") for prefix in ("", "untrained:", "untrained:"))
    assert first.id == f"untrained:clip:{resnet_folder.resolve()}"
    assert first.weights_sha256 == second.weights_sha256 != trained.weights_sha256
    assert first.hookpoints() == trained.hookpoints()
    assert first.provenance()["preprocess"] == trained.provenance()["preprocess"]
    assert torch.equal(first.tokenize(["the cat"])[0], trained.tokenize(["the cat"])[0])


def test_batch_norms_of_an_untrained_resnet_have_settled(resnet_folder):
    subject = load(f"untrained:clip:{resnet_folder}")
    norms = [module for module in subject.model.visual.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    x = subject.run(Batch(first_example=0, images=dead_leaves(64, 64)), ["visual.layer4.0.hook_post"])
    # The first bottleneck is a rectified batch norm: a half-normal distribution has a mean square of one half.
    assert float(x["visual.layer4.0.hook_post"].square().mean()) == pytest.approx(0.5, abs=0.15)


def test_dead_leaves_are_pictures():
    pictures = dead_leaves(24, 32)
    assert pictures.shape == (64, 3, 24, 32) and pictures.dtype == torch.uint8
    assert torch.equal(pictures, dead_leaves(24, 32))
    assert (pictures[..., 1:] == pictures[..., :-1]).float().mean() > 0.7, "neighbours mostly lie on the same disc"
    assert pictures.float().mean((1, 2, 3)).std() > 20, "pictures differ in brightness"


@pytest.mark.parametrize("id", ["untrained:", "untrained:gpt2", "untrained:untrained:builtin:stdlib-1l"])
def test_an_id_needs_a_trained_one_behind_the_prefix(id):
    with pytest.raises(SubjectError, match="Allowed: builtin:, language:, clip:"):
        load(id)


def test_untrained_built_ins_have_their_names_and_inputs():
    subject = load("untrained:builtin:stdlib-1l")
    assert subject.id == "untrained:builtin:stdlib-1l@0"
    assert builtin_inputs(subject.id) == builtin_inputs("builtin:stdlib-1l") == StdlibInputsConfig(split="score")
    assert isinstance(builtin_inputs("untrained:builtin:concepts-clip-rn@1"), ConceptInputsConfig)
    with pytest.raises(ConfigError, match="untrained:clip:x"):
        builtin_inputs("untrained:clip:x")
    with pytest.raises(ConfigError, match="no such built-in"):
        load(f"{builtin.UNTRAINED}builtin:stdlib-9l")
