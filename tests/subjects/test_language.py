import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertModel

from sae.errors import HookpointError, SubjectError
from sae.subjects import load as load_module
from sae.subjects.language import LanguageSubject
from sae.tensors import Batch, Kind

ARCHITECTURES = ["gpt2", "neox", "llama", "gemma2", "bert"]


@pytest.fixture(scope="module")
def subjects(tiny_folders):
    return {name: load_module.load(f"language:{folder}") for name, folder in tiny_folders.items()}


@pytest.fixture(scope="module")
def bare(tiny_folders):
    classes = {"bert": AutoModelForMaskedLM}
    return {
        name: classes.get(name, AutoModelForCausalLM).from_pretrained(folder).eval()
        for name, folder in tiny_folders.items()
    }


def batch_of(n_examples=3, n_positions=10, **more):
    tokens = torch.randint(3, 250, (n_examples, n_positions), generator=torch.Generator().manual_seed(1))
    return Batch(first_example=0, tokens=tokens, **more)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_values_are_those_of_transformer_lens(name, subjects, tiny_folders):
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(tiny_folders[name]), device="cpu")
    batch, subject = batch_of(), subjects[name]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(batch.tokens, attention_mask=torch.ones_like(batch.tokens))
    read = subject.run(batch, list(subject.hookpoints()))
    assert len(read) >= 13
    for hookpoint, x in read.items():
        torch.testing.assert_close(x, cache[hookpoint].flatten(2), atol=1e-4, rtol=1e-4, msg=hookpoint)
        assert subject.hookpoints()[hookpoint].d_in == x.shape[-1]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_residual_stream_and_logits_are_those_of_hugging_face(name, subjects, bare):
    batch, subject = batch_of(), subjects[name]
    with torch.no_grad():
        expected = bare[name](batch.tokens, attention_mask=torch.ones_like(batch.tokens), output_hidden_states=True)
    names = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"]
    read = subject.run(batch, names)
    for hookpoint, hidden in zip(names, (0, 1, 1), strict=True):
        torch.testing.assert_close(read[hookpoint], expected.hidden_states[hidden], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(subject.forward(batch), expected.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parts_add_up(name, subjects):
    read = subjects[name].run(batch_of(), list(subjects[name].hookpoints()))
    x = {hookpoint.removeprefix("blocks.0."): value for hookpoint, value in read.items()}
    assert x["mlp.hook_post"].shape[-1] == 24
    assert ("hook_resid_mid" in x) == (name in ("gpt2", "llama", "gemma2"))
    if "hook_resid_mid" in x:
        torch.testing.assert_close(x["hook_resid_pre"] + x["hook_attn_out"], x["hook_resid_mid"])
        torch.testing.assert_close(x["hook_resid_mid"] + x["hook_mlp_out"], x["hook_resid_post"])
    if name == "neox":
        torch.testing.assert_close(x["hook_resid_pre"] + x["hook_attn_out"] + x["hook_mlp_out"], x["hook_resid_post"])


@pytest.mark.parametrize(
    ("name", "module", "result"),
    [
        ("gpt2", "h.0.mlp", "hook_mlp_out"),
        ("neox", "layers.0.mlp", "hook_mlp_out"),
        ("llama", "layers.0.mlp", "hook_mlp_out"),
        ("bert", "encoder.layer.0.intermediate", "mlp.hook_post"),
    ],
)
def test_the_mlp_makes_its_output_from_its_input(name, module, result, subjects):
    found = subjects[name].run(batch_of(), ["blocks.0.mlp.hook_in", f"blocks.0.{result}"])
    mlp = subjects[name].model.base_model.get_submodule(module)
    torch.testing.assert_close(mlp(found["blocks.0.mlp.hook_in"]), found[f"blocks.0.{result}"])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_later_blocks_do_not_run(name, subjects):
    subject = subjects[name]
    ran = []
    handle = subject._places["blocks.1.hook_resid_pre"].visit(lambda x: ran.append(1))
    subject.run(batch_of(), ["blocks.0.mlp.hook_post", "blocks.0.hook_resid_post"])
    assert not ran
    subject.run(batch_of(), ["blocks.1.hook_resid_pre"])
    handle.remove()
    assert ran == [1]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_hook_is_left_behind(name, subjects):
    subject = subjects[name]
    subject.run(batch_of(), ["blocks.0.hook_resid_post"])
    with pytest.raises(RuntimeError, match="stop"):
        subject.forward(batch_of(), {"blocks.0.hook_resid_post": _raise})
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in subject.model.modules())


def _raise(x):
    raise RuntimeError("stop")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_edits_at_every_hookpoint(name, subjects):
    subject, batch = subjects[name], batch_of()
    untouched = subject.forward(batch)
    same = subject.forward(batch, dict.fromkeys(subject.hookpoints(), lambda x: x))
    assert torch.equal(same, untouched)
    for hookpoint in subject.hookpoints():
        zeroed = subject.forward(batch, {hookpoint: torch.zeros_like})
        assert not torch.allclose(zeroed, untouched, atol=1e-4), hookpoint


@pytest.mark.parametrize("hookpoint", ["hook_embed", "blocks.0.hook_resid_mid", "blocks.1.hook_resid_post"])
def test_what_an_edit_returns_goes_where_the_model_is(hookpoint, subjects, monkeypatch):
    subject, reached = subjects["gpt2"], []
    visit = subject._visited

    def visited(visitors):
        """Show visitors what a model on another device would; what they return goes no further."""

        def elsewhere(x):
            away = x.to("meta")
            found = visitors[hookpoint](away)
            reached.append(away if found is None else found)

        return visit({hookpoint: elsewhere})

    monkeypatch.setattr(subject, "_visited", visited)
    subject.forward(batch_of(), {hookpoint: lambda x: torch.zeros(x.shape, dtype=torch.float64)})
    assert [(one.device.type, one.dtype) for one in reached] == [("meta", torch.float32)]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_an_edit_of_the_middle_reaches_the_residual_stream(name, subjects):
    subject, read = subjects[name], {}
    edits = {
        "blocks.0.hook_resid_mid": torch.zeros_like,
        "blocks.0.hook_mlp_out": lambda x: read.setdefault("mlp", x),
        "blocks.0.hook_resid_post": lambda x: read.setdefault("post", x),
    }
    subject.forward(batch_of(), edits)
    torch.testing.assert_close(read["post"], read["mlp"])


@pytest.mark.parametrize("hookpoint", ["blocks.0.hook_resid_mid", "blocks.0.mlp.hook_post", "hook_embed"])
def test_gradients_reach_what_an_edit_brings_in(hookpoint, subjects):
    subject = subjects["gpt2"]
    push = torch.zeros(subject.hookpoints()[hookpoint].d_in, requires_grad=True)
    subject.forward(batch_of(), {hookpoint: lambda x: x + push}, grad=True)[..., 7].sum().backward()
    assert push.grad is not None and push.grad.abs().sum() > 0
    assert all(p.grad is None for p in subject.model.parameters())
    assert not subject.forward(batch_of(), {hookpoint: lambda x: x + push}).requires_grad


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_changes_nothing(name, subjects):
    subject, short = subjects[name], batch_of(n_positions=6)
    padded = Batch(
        first_example=0,
        tokens=torch.nn.functional.pad(short.tokens, (0, 4), value=2),
        attended=torch.nn.functional.pad(torch.ones(3, 6, dtype=torch.bool), (0, 4)),
    )
    hookpoint = "blocks.1.hook_resid_post"
    ours, theirs = (subject.run(batch, [hookpoint])[hookpoint][:, :6] for batch in (padded, short))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    rows = subject.rows(padded, "tokens")
    assert rows.keep.sum() == 18 and bool((rows.kind == Kind.TOKEN).all()) and torch.equal(rows.token, padded.tokens)


def test_hookpoints_come_in_the_order_of_the_model(subjects):
    names = [n for n in subjects["llama"].hookpoints() if n.startswith("blocks.0")]
    assert names == [
        f"blocks.0.{n}"
        for n in (
            "hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_in", "mlp.hook_pre",
            "mlp.hook_post", "hook_mlp_out", "hook_resid_post",
        )
    ]  # fmt: skip
    assert {h.grid for h in subjects["llama"].hookpoints().values()} == {"tokens"}


def test_unknown_names_say_what_is_near(subjects):
    with pytest.raises(HookpointError, match=r"Did you mean 'blocks.1.hook_resid_post'"):
        subjects["gpt2"].run(batch_of(), ["blocks.1.hook_resid_pots"])
    with pytest.raises(HookpointError, match="no hookpoint"):
        subjects["gpt2"].forward(batch_of(), {"blocks.7.hook_resid_post": lambda x: x})
    with pytest.raises(SubjectError, match="no grid"):
        subjects["gpt2"].rows(batch_of(), "visual.tokens")


def test_inputs_that_do_not_fit(subjects):
    subject = subjects["gpt2"]
    with pytest.raises(SubjectError, match="at most 64"):
        subject.run(batch_of(n_positions=65), ["blocks.0.hook_resid_post"])
    with pytest.raises(SubjectError, match="token ids"):
        subject.forward(Batch(first_example=0, tokens=torch.full((1, 3), 10_000)))
    with pytest.raises(SubjectError, match="needs tokens"):
        subject.forward(Batch(first_example=0))
    with pytest.raises(SubjectError, match="changed the shape"):
        subject.forward(batch_of(), {"blocks.0.hook_resid_post": lambda x: x[:1]})


def test_provenance(subjects, tiny_gpt2_folder):
    known = subjects["gpt2"].provenance()
    assert len(known["weights_sha256"]) == 64 and known["folding"] == "none" and known["dtype"] == "float32"
    assert set(known["libraries"]) == {"torch", "transformers", "transformer-lens"}
    assert known["tokens"]["special"]["bos_token"] == "<bos>"
    again = load_module.load(f"language:{tiny_gpt2_folder}", dtype="bfloat16")
    assert again.provenance()["weights_sha256"] == known["weights_sha256"]
    assert again.provenance()["dtype"] == "bfloat16"
    assert subjects["gemma2"].provenance()["attention"] == "eager"


def test_weights_from_elsewhere_are_hashed_by_value(subjects):
    gpt2 = subjects["gpt2"]
    one = LanguageSubject("x", gpt2.model, "no-folder", True, gpt2._places)._weights_sha256
    two = LanguageSubject("x", subjects["llama"].model, "no-folder", True, {})._weights_sha256
    assert one == LanguageSubject("y", gpt2.model, "other", True, {})._weights_sha256 != two


def test_without_a_tokenizer(tiny_gpt2_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_gpt2_folder / name, tmp_path)
    subject = load_module.load(f"language:{tmp_path}")
    assert subject.forward(batch_of()).shape[:2] == (3, 10)
    assert subject.provenance()["tokens"]["tokenizer"] is None
    with pytest.raises(SubjectError, match="has no tokenizer"):
        _ = subject.tokenizer


@pytest.mark.parametrize("safetensors", [True, False])
def test_an_encoder_without_its_head_can_be_read(safetensors, subjects, tiny_bert_folder, tmp_path, caplog):
    body = BertModel.from_pretrained(tiny_bert_folder, add_pooling_layer=False)
    body.config.save_pretrained(tmp_path)
    if safetensors:
        body.save_pretrained(tmp_path)
    else:
        torch.save(body.state_dict(), tmp_path / "pytorch_model.bin")
    subject = load_module.load(f"language:{tmp_path}")
    assert "no language-modelling head" in caplog.text and "random" not in caplog.text
    hookpoints = list(subject.hookpoints())
    assert hookpoints == list(subjects["bert"].hookpoints())
    with_head = subjects["bert"].run(batch_of(), hookpoints)
    for hookpoint, x in subject.run(batch_of(), hookpoints).items():
        assert torch.equal(x, with_head[hookpoint]), hookpoint
    with pytest.raises(SubjectError, match="no logits"):
        subject.forward(batch_of())
    # What the head was filled with leaves no trace.
    again = load_module.load(f"language:{tmp_path}")
    assert again.provenance()["weights_sha256"] == subject.provenance()["weights_sha256"]


def test_a_body_with_holes_is_warned_of(tiny_gpt2_folder, tmp_path, caplog):
    shutil.copytree(tiny_gpt2_folder, tmp_path, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2_folder)
    weights = {name: value for name, value in model.state_dict().items() if ".h.1.mlp" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    subject = load_module.load(f"language:{tmp_path}")
    assert "lacks transformer.h.1.mlp" in caplog.text and "random" in caplog.text
    assert subject.predicts_next_token


def test_whose_logits_are_of_the_next_token(subjects):
    assert {name for name, subject in subjects.items() if not subject.predicts_next_token} == {"bert"}


def test_other_dtypes(tiny_gpt2_folder):
    subject = load_module.load(f"language:{tiny_gpt2_folder}", dtype=torch.bfloat16)
    assert subject.run(batch_of(), ["blocks.0.hook_resid_post"])["blocks.0.hook_resid_post"].dtype == torch.bfloat16
    with pytest.raises(SubjectError, match="Did you mean 'float32'"):
        load_module.load(f"language:{tiny_gpt2_folder}", dtype="float23")
