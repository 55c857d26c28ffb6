import json
import math

import pytest
import torch
from PIL import Image
from tiny_clip import CONFIGS, N_VOCAB, save_clip
from torch.nn import functional as F

from sae.errors import HookpointError, SubjectError
from sae.subjects.load import load
from sae.subjects.vision import ClipSubject
from sae.tensors import Batch, Kind

TEXTS = ("the cat", "a dog ran after the cat and the dog and more and more", "dog")
RESIDUAL = (
    *("hook_resid_pre", "hook_attn_out", "hook_resid_mid"),
    *("mlp.hook_in", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"),
)


@pytest.fixture(scope="session")
def folders(tmp_path_factory, tiny_bert_folder):
    root = tmp_path_factory.mktemp("clip")
    return {name: save_clip(root / name, name, tiny_bert_folder if name == "hf_text" else None) for name in CONFIGS}


@pytest.fixture(scope="session")
def subjects(folders):
    return {name: load(f"clip:{folder}") for name, folder in folders.items()}


def make_batch(subject: ClipSubject, texts: tuple[str, ...] = TEXTS) -> Batch:
    size = 64 if "visual.layer1.0.hook_post" in subject.hookpoints() else 32
    images = torch.randint(
        0, 256, (len(texts), 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    tokens, attended, kind = subject.tokenize(texts)
    return Batch(first_example=0, images=images, tokens=tokens, attended=attended, kind=kind)


def block_names(tower: str, n_blocks: int) -> list[str]:
    return [f"{tower}.blocks.{i}.{name}" for i in range(n_blocks) for name in RESIDUAL]


def attention(x, attn, n_heads, causal):
    """Multi-head attention written out."""
    n, length, width = x.shape
    q, k, v = (F.linear(x, attn.in_proj_weight, attn.in_proj_bias)).chunk(3, dim=-1)
    q, k, v = (t.view(n, length, n_heads, -1).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(width // n_heads)
    if causal:
        scores = scores + torch.full((length, length), -math.inf).triu(1)
    return attn.out_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, width))


def native_reference(blocks, x, tower, quick_gelu, causal):
    """Run open_clip's own blocks by hand from the first residual stream."""
    expected = {}
    for i, block in enumerate(blocks):
        attn_out = attention(F.layer_norm(x, x.shape[-1:], block.ln_1.weight, block.ln_1.bias), block.attn, 2, causal)
        mid = x + attn_out
        mlp_in = F.layer_norm(mid, x.shape[-1:], block.ln_2.weight, block.ln_2.bias)
        pre = block.mlp.c_fc(mlp_in)
        post = pre * torch.sigmoid(1.702 * pre) if quick_gelu else F.gelu(pre)
        mlp_out = block.mlp.c_proj(post)
        values = (x, attn_out, mid, mlp_in, post, mlp_out, mid + mlp_out)
        expected |= {f"{tower}.blocks.{i}.{name}": value for name, value in zip(RESIDUAL, values, strict=True)}
        x = mid + mlp_out
    return expected


def check(subject, batch, expected, atol=2e-5):
    found = subject.run(batch, list(expected))
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].shape[-1] == subject.hookpoints()[name].d_in
        torch.testing.assert_close(
            found[name], value, atol=atol, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def pixels_of(batch):
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)
    return (batch.images / 255 - mean) / std


@torch.no_grad()
def test_values_of_native_image_tower(subjects):
    subject, visual = subjects["vit"], subjects["vit"].model.visual
    batch = make_batch(subject)
    patches = F.conv2d(pixels_of(batch), visual.conv1.weight, stride=8).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(3, 1, -1), patches], 1) + visual.positional_embedding
    expected = native_reference(visual.transformer.resblocks, visual.ln_pre(x), "visual", True, causal=False)
    last = expected["visual.blocks.1.hook_resid_post"][:, 0]
    expected["visual.embedding"] = (visual.ln_post(last) @ visual.proj)[:, None]
    check(subject, batch, expected)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit", "timm"])
def test_values_of_native_text_tower(subjects, name):
    subject = subjects[name]
    text = subject.model.text if name == "timm" else subject.model
    batch = make_batch(subject)
    x = text.token_embedding(batch.tokens) + text.positional_embedding
    expected = native_reference(text.transformer.resblocks, x, "text", name == "vit", causal=name == "vit")
    last = text.ln_final(expected["text.blocks.1.hook_resid_post"])
    if name == "vit":
        pooled = last[torch.arange(3), [3, 11, 2]] @ text.text_projection
    else:
        pooled = text.text_projection(last[:, -1])
    expected["text.embedding"] = pooled[:, None]
    check(subject, batch, expected)


@torch.no_grad()
def test_values_of_resnet(subjects):
    subject, visual = subjects["resnet"], subjects["resnet"].model.visual
    batch = make_batch(subject)
    x = visual.stem(pixels_of(batch))
    expected = {}
    for stage in (1, 2, 3, 4):
        for i, block in enumerate(getattr(visual, f"layer{stage}")):
            inside = F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))))
            skip = x if block.downsample is None else block.downsample(x)
            x = F.relu(block.bn3(block.conv3(block.avgpool(inside))) + skip)
            expected[f"visual.layer{stage}.{i}.hook_post"] = x.permute(0, 2, 3, 1).reshape(3, -1, x.shape[1])
    assert [name for name in subject.hookpoints() if name.startswith("visual.layer")] == list(expected)
    expected["visual.embedding"] = visual.attnpool(x)[:, None]
    check(subject, batch, expected)


@torch.no_grad()
def test_values_of_timm_trunk(subjects):
    subject, trunk = subjects["timm"], subjects["timm"].model.visual.trunk
    batch = make_batch(subject)
    x = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(pixels_of(batch))))
    expected = {}
    for i, block in enumerate(trunk.blocks):
        attn_out = block.attn(block.norm1(x))
        mid = x + attn_out
        mlp_in = block.norm2(mid)
        post = F.gelu(block.mlp.fc1(mlp_in))
        mlp_out = block.mlp.fc2(post)
        values = (x, attn_out, mid, mlp_in, post, mlp_out, mid + mlp_out)
        expected |= {f"visual.blocks.{i}.{name}": value for name, value in zip(RESIDUAL, values, strict=True)}
        x = mid + mlp_out
    expected["visual.embedding"] = trunk.forward_head(trunk.norm(x))[:, None]
    check(subject, batch, expected)


@torch.no_grad()
def test_values_of_hugging_face_text_tower(subjects):
    subject, text = subjects["hf_text"], subjects["hf_text"].model.text
    batch = make_batch(subject)
    mask = batch.tokens != 2
    hidden = text.transformer(input_ids=batch.tokens, attention_mask=mask, output_hidden_states=True).hidden_states
    expected = {}
    for i, layer in enumerate(text.transformer.encoder.layer):
        output, post = layer.output, None
        mid = subject.run(batch, [f"text.blocks.{i}.hook_resid_mid"])[f"text.blocks.{i}.hook_resid_mid"]
        attn_out = subject.run(batch, [f"text.blocks.{i}.hook_attn_out"])[f"text.blocks.{i}.hook_attn_out"]
        torch.testing.assert_close(layer.attention.output.LayerNorm(hidden[i] + attn_out), mid)
        post = F.gelu(layer.intermediate.dense(mid))
        mlp_out = output.dense(post)
        values = (hidden[i], attn_out, mid, mid, post, mlp_out, hidden[i + 1])
        expected |= {f"text.blocks.{i}.{name}": value for name, value in zip(RESIDUAL, values, strict=True)}
        torch.testing.assert_close(output.LayerNorm(mlp_out + mid), hidden[i + 1])
    pooled = (hidden[-1] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expected["text.embedding"] = text.proj(pooled)[:, None]
    check(subject, batch, expected)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_hookpoints_fit_their_grids(subjects, name):
    subject = subjects[name]
    batch = make_batch(subject)
    for point, value in subject.run(batch, list(subject.hookpoints())).items():
        hookpoint = subject.hookpoints()[point]
        rows = subject.rows(batch, hookpoint.grid)
        assert value.shape == (*rows.keep.shape, hookpoint.d_in)
        assert rows.kind.shape == rows.keep.shape and value.dtype == torch.float32 and not value.requires_grad


@pytest.mark.parametrize("name", list(CONFIGS))
def test_examples_do_not_mix(subjects, name):
    subject = subjects[name]
    batch = make_batch(subject)
    alone = Batch(first_example=1, images=batch.images[1:2], tokens=batch.tokens[1:2])
    points = list(subject.hookpoints())
    together, single = subject.run(batch, points), subject.run(alone, points)
    for point in points:
        torch.testing.assert_close(together[point][1:2], single[point], atol=2e-5, rtol=1e-4)


def test_stops_after_the_last_hookpoint(subjects):
    subject = subjects["vit"]
    batch, model = make_batch(subject), subject.model
    called = []
    modules = {"visual 0": model.visual.transformer.resblocks[0].mlp, "visual 1": model.visual.transformer.resblocks[1]}
    modules |= {"text 0": model.transformer.resblocks[0]}
    handles = [m.register_forward_hook(lambda *_, name=name: called.append(name)) for name, m in modules.items()]
    try:
        subject.run(batch, ["visual.blocks.0.hook_resid_mid"])
        assert called == []
        subject.run(batch, ["visual.blocks.0.hook_resid_post", "visual.blocks.0.hook_attn_out"])
        assert called == ["visual 0"]
        subject.run(Batch(first_example=0, tokens=batch.tokens), ["text.embedding"])
        assert called == ["visual 0", "text 0"]
    finally:
        for handle in handles:
            handle.remove()
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == []


@pytest.mark.parametrize("name", list(CONFIGS))
def test_edits(subjects, name):
    subject = subjects[name]
    batch = make_batch(subject)
    plain = subject.forward(batch)
    assert torch.allclose(plain.image.norm(dim=-1), torch.ones(3)) and plain.logits().shape == (3, 3)
    same = subject.forward(batch, dict.fromkeys(subject.hookpoints(), lambda x: x))
    assert torch.equal(same.image, plain.image) and torch.equal(same.text, plain.text)
    for point in subject.hookpoints():
        changed = subject.forward(batch, {point: torch.zeros_like})
        image, text = torch.equal(changed.image, plain.image), torch.equal(changed.text, plain.text)
        assert (image, text) == ((False, True) if point.startswith("visual") else (True, False)), point


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_what_an_edit_returns_goes_where_the_model_is(folders, name):
    subject = load(f"clip:{folders[name]}")
    batch = make_batch(subject)
    subject.model.to("meta")
    subject.device = torch.device("meta")
    subject._frames.normalise = lambda images: torch.zeros(images.shape, device="meta")
    for point in subject.hookpoints():
        out = subject.forward(batch, {point: lambda x: torch.zeros(x.shape, dtype=torch.float64)})
        assert out.image.device.type == out.text.device.type == "meta", point


@pytest.mark.parametrize("name", list(CONFIGS))
def test_going_on_from_what_was_read_gives_what_a_whole_run_gives(subjects, name):
    subject = subjects[name]
    batch = make_batch(subject)
    plain, resumed = subject.forward(batch), []
    for point in subject.hookpoints():
        found = subject.resume(point, subject.run(batch, [point])[point])
        if found is not None:
            resumed.append(point)
            tower = point.partition(".")[0]
            own = {"visual": "image", "text": "text"}[tower]
            assert torch.allclose(getattr(found, own), getattr(plain, own), atol=1e-6), point
    ends = [p for p in subject.hookpoints() if p.startswith("visual.") and p.count(".") <= 3]
    ends = [p for p in ends if p.endswith((".hook_resid_post", "0.hook_post", "1.hook_post"))]
    assert set(resumed) == {*ends, "visual.embedding", "text.embedding"} and ends
    after = subject.forward(batch)
    assert torch.equal(after.image, plain.image), "the modules work again"
    with pytest.raises(HookpointError, match="no hookpoint"):
        subject.resume("visual.embeding", plain.image[:, None])


@pytest.mark.parametrize(
    ("name", "tower"), [("vit", "visual"), ("vit", "text"), ("timm", "visual"), ("hf_text", "text")]
)
def test_editing_the_stream_between_attention_and_mlp_reaches_both(subjects, name, tower):
    subject = subjects[name]
    batch, seen = make_batch(subject), {}

    def keep(point):
        return lambda x: seen.setdefault(point, x)

    names = [f"{tower}.blocks.0.{last}" for last in ("hook_resid_mid", "hook_mlp_out", "hook_resid_post")]
    subject.forward(batch, {names[0]: lambda x: x * 2 + 1, names[1]: keep("mlp"), names[2]: keep("post")})
    mid = subject.run(batch, names[:1])[names[0]] * 2 + 1
    total = mid + seen["mlp"]
    if name == "hf_text":
        total = subject.model.text.transformer.encoder.layer[0].output.LayerNorm(total)
    torch.testing.assert_close(seen["post"], total)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_gradients_reach_what_edits_bring_in(subjects, name):
    subject = subjects[name]
    batch = make_batch(subject)
    for point, hookpoint in subject.hookpoints().items():
        shift = torch.full((hookpoint.d_in,), 0.1, requires_grad=True)
        output = subject.forward(batch, {point: lambda x, shift=shift: x * (1 + shift) + shift}, grad=True)
        output.logits()[0, 0].backward()
        assert shift.grad is not None and shift.grad.abs().sum() > 0, point
    assert all(parameter.grad is None for parameter in subject.model.parameters())
    assert not subject.forward(batch).image.requires_grad


def test_rows_of_text_end_with_it(subjects):
    batch = make_batch(subjects["vit"])
    rows = subjects["vit"].rows(batch, "text.tokens")
    assert rows.keep.sum(1).tolist() == [4, 12, 3]
    assert rows.token is not None and torch.equal(rows.token, batch.tokens)
    assert rows.kind[0, :4].tolist() == [Kind.BOS, Kind.TOKEN, Kind.TOKEN, Kind.EOT]
    assert rows.kind[1, -1] == Kind.EOT and batch.tokens[1, -1] == N_VOCAB - 1
    assert torch.equal(rows.keep, batch.attended) and torch.equal(rows.kind, batch.kind)
    bert = subjects["hf_text"]
    kinds = bert.rows(make_batch(bert, ("cat", "")), "text.tokens").kind
    assert kinds[1, :3].tolist() == [Kind.BOS, Kind.EOT, Kind.SPECIAL]


def test_exclamation_marks_are_text_although_padding_has_their_number(subjects):
    tokens, attended, _ = subjects["vit"].tokenize(["!", "! ! the"])
    assert attended.sum(1).tolist() == [3, 5] and (tokens[0] == tokens[0, -1]).sum() >= 9


def test_rows_of_images(subjects, folders, tmp_path):
    batch = make_batch(subjects["vit"])
    rows = subjects["vit"].rows(batch, "visual.tokens")
    assert rows.keep.all() and rows.keep.shape == (3, 17) and rows.token is None
    assert rows.kind[1].tolist() == [Kind.CLASS] + [Kind.PATCH] * 16
    assert subjects["resnet"].rows(batch, "visual.layer2").kind.tolist() == [[Kind.PATCH] * 64] * 3
    assert subjects["vit"].rows(batch, "text.pooled").kind.tolist() == [[Kind.POOLED]] * 3
    register = load(f"clip:{save_clip(tmp_path, 'timm', timm_model_name='test_vit2', timm_pool='avg')}")
    assert register.rows(batch, "visual.tokens").kind[0].tolist() == [Kind.SPECIAL] + [Kind.PATCH] * 4


def test_patches_cover_the_frame(subjects):
    for subject, grid, prefix, size in (
        (subjects["vit"], "visual.tokens", 1, 32),
        (subjects["resnet"], "visual.layer3", 0, 64),
    ):
        n_rows, n_columns = subject.patch_grid(grid)
        covered = torch.zeros(size, size)
        for position in range(n_rows * n_columns):
            left, top, right, bottom = subject.patch_box(grid, position + prefix)
            covered[top:bottom, left:right] += 1
        assert (covered == 1).all()
    assert subjects["vit"].patch_box("visual.tokens", 0) == (0, 0, 32, 32)
    assert subjects["vit"].patch_box("visual.tokens", 6) == (8, 8, 16, 16)


def test_a_patch_sees_its_box(subjects):
    subject = subjects["vit"]
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    left, top, right, bottom = subject.patch_box("visual.tokens", 7)
    images[1, :, top:bottom, left:right] = 255
    x = subject.run(Batch(first_example=0, images=images), ["visual.blocks.0.hook_resid_pre"])[
        "visual.blocks.0.hook_resid_pre"
    ]
    assert ((x[0] - x[1]).abs().sum(-1) > 0).nonzero().flatten().tolist() == [7]


def test_zero_shot_classifier(subjects):
    subject = subjects["vit"]
    prompts = [["the cat", "a cat"], ["dog"]]
    classifier = subject.zero_shot_classifier(prompts)
    for row, texts in zip(classifier, prompts, strict=True):
        embeddings = subject.model.encode_text(subject.tokenize(texts)[0], normalize=True)
        torch.testing.assert_close(row, F.normalize(embeddings.mean(0), dim=0))
    images = Batch(first_example=0, images=make_batch(subject).images)
    output = subject.forward(images)
    assert output.text is None
    torch.testing.assert_close(output.logits(classifier), output.image @ classifier.T / 0.07)
    with pytest.raises(SubjectError, match="at least one prompt"):
        subject.zero_shot_classifier([["cat"], []])


@torch.no_grad()
@pytest.mark.parametrize("name", list(CONFIGS))
def test_logits_are_open_clips(subjects, name):
    subject = subjects[name]
    batch = make_batch(subject)
    expected, _ = subject.model.get_logits(pixels_of(batch), batch.tokens)
    torch.testing.assert_close(subject.forward(batch).logits(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_preprocess_is_open_clips_without_normalisation(subjects, folders, mode):
    import open_clip

    noise = torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(noise.numpy()).convert(mode)
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folders['vit']}")
    frame = subjects["vit"].preprocess(image)
    assert frame.shape == (3, 32, 32) and frame.dtype == torch.uint8
    torch.testing.assert_close(pixels_of(Batch(first_example=0, images=frame[None]))[0], transform(image))


def test_bfloat16(subjects, folders):
    subject = load(f"clip:{folders['vit']}", dtype="bfloat16")
    batch = make_batch(subject)
    assert (
        subject.run(batch, ["visual.blocks.1.hook_resid_post"])["visual.blocks.1.hook_resid_post"].dtype
        == torch.bfloat16
    )
    output, exact = subject.forward(batch), subjects["vit"].forward(batch)
    assert output.image.dtype == torch.float32 and torch.equal(output.logit_scale, exact.logit_scale)
    torch.testing.assert_close(output.image, exact.image, atol=0.02, rtol=0)
    assert subject.provenance()["dtype"] == "bfloat16"
    assert subject.provenance()["weights_sha256"] == subjects["vit"].provenance()["weights_sha256"]
    with pytest.raises(SubjectError, match="Did you mean 'float16'"):
        load(f"clip:{folders['vit']}", dtype="float61")


def test_provenance_is_plain_and_complete(subjects):
    found = subjects["vit"].provenance()
    assert json.loads(json.dumps(found)) == found
    assert found["quick_gelu"] is True and found["preprocess"]["mean"] == [0.5, 0.4, 0.3]
    assert found["tokens"]["eot"] == N_VOCAB - 1 and "open_clip_torch" in found["libraries"]
    assert "timm" in subjects["timm"].provenance()["libraries"]
    assert found["weights_sha256"] != subjects["hf_text"].provenance()["weights_sha256"]


def test_quick_gelu_mismatch_is_an_error():
    with pytest.raises(SubjectError, match="clip:ViT-B-32-quickgelu/openai"):
        load("clip:ViT-B-32/openai")


@pytest.mark.parametrize(
    ("subject_id", "message"),
    [
        ("clip:ViT-B-23/openai", "Did you mean 'ViT-B-32'"),
        ("clip:ViT-B-32-quickgelu/openia", "Did you mean 'openai'"),
        ("clip:/no/such/folder", "no such folder"),
    ],
)
def test_unknown_models(subject_id, message):
    with pytest.raises(SubjectError, match=message):
        load(subject_id)


def copy_of(folder, target):
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_bad_folders(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SubjectError, match=r"open_clip_config\.json"):
        load(f"clip:{tmp_path / 'empty'}")
    no_weights = copy_of(folders["vit"], tmp_path / "no_weights")
    (no_weights / "open_clip_model.safetensors").unlink()
    with pytest.raises(SubjectError, match="cannot load it"):
        load(f"clip:{no_weights}")
    damaged = copy_of(folders["vit"], tmp_path / "damaged")
    (damaged / "open_clip_model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00nonsense")
    with pytest.raises(SubjectError, match="cannot load it"):
        load(f"clip:{damaged}")
    other = copy_of(folders["resnet"], tmp_path / "other")
    (other / "open_clip_config.json").write_bytes((folders["vit"] / "open_clip_config.json").read_bytes())
    with pytest.raises(SubjectError, match="cannot load it"):
        load(f"clip:{other}")
    wrong_words = copy_of(folders["vit"], tmp_path / "wrong_words")
    settings = json.loads((wrong_words / "open_clip_config.json").read_text())
    del settings["model_cfg"]["text_cfg"]["tokenizer_kwargs"]
    (wrong_words / "open_clip_config.json").write_text(json.dumps(settings))
    with pytest.raises(SubjectError, match=f"49408 tokens and the text tower {N_VOCAB} embeddings"):
        load(f"clip:{wrong_words}")


def test_wrong_requests(subjects):
    subject = subjects["vit"]
    batch = make_batch(subject)
    with pytest.raises(HookpointError, match=r"Did you mean 'visual\.blocks\.1\.hook_resid_post'"):
        subject.run(batch, ["visual.blocks.1.hook_residpost"])
    with pytest.raises(HookpointError, match="no hookpoint"):
        subject.forward(batch, {"visual.blocks.7.hook_resid_post": lambda x: x})
    with pytest.raises(HookpointError, match=r"Did you mean 'visual\.tokens'"):
        subject.rows(batch, "visual.token")
    with pytest.raises(HookpointError, match="no grid of image positions"):
        subject.patch_grid("text.tokens")
    with pytest.raises(SubjectError, match="no images"):
        subject.run(Batch(first_example=0, tokens=batch.tokens), ["visual.embedding"])
    with pytest.raises(SubjectError, match="no tokens"):
        subject.rows(Batch(first_example=0, images=batch.images), "text.tokens")
    with pytest.raises(SubjectError, match=r"images of \(16, 32\)"):
        subject.forward(Batch(first_example=0, images=batch.images[:, :, :16]))
    with pytest.raises(SubjectError, match="returned shape"):
        subject.forward(batch, {"visual.blocks.0.hook_resid_post": lambda x: x[:, :1]})
