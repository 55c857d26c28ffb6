"""Questions to tiny loaded subjects, beside what the subject and the dictionary do when asked directly."""

import base64
import io
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from live_catalogs import COLOURS, FEW, image_catalog, picture_bytes, text_catalog
from PIL import Image
from safetensors.torch import load_file

from sae.activations.store import ActivationStore
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import CatalogError, InputsError, SubjectError
from sae.features.building.build import build
from sae.features.building.catalog_config import CatalogConfig
from sae.features.catalog import Catalog
from sae.features.live.asks import asks_of
from sae.features.live.contrast_sets import ContrastAsk
from sae.features.live.given import MOST_SIDE, frame_of
from sae.features.live.image import ImageAsk
from sae.features.live.label_sets import choose
from sae.features.live.loaded import Loaded
from sae.features.live.phrase import PhraseAsk
from sae.features.live.sentence import SentenceAsk
from sae.features.live.words import PLAIN, words_and_templates
from sae.tensors import Batch, Kind

WORDS = ["The cat sat", "A dog ran after the cat", "amused", "mat mat mat"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return text_catalog(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return text_catalog(tmp_path_factory.mktemp("encoder"), "bert")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return image_catalog(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return image_catalog(tmp_path_factory.mktemp("joint"), "visual.embedding")


def test_each_subject_answers_what_it_can(text: Loaded, image: Loaded) -> None:
    assert set(asks_of(text)) == {"sentence", "contrast", "circuit"}
    assert set(asks_of(image)) == {"phrase", "image", "contrast", "circuit"}


def test_a_catalog_of_something_else_is_refused(text: Loaded, image: Loaded) -> None:
    with pytest.raises(CatalogError, match="is not of"):
        Loaded.of(text.catalog, image.dictionary, None, text.subject, text.inputs)  # type: ignore[arg-type]


def test_a_sentence_shows_what_fires_on_every_token(text: Loaded) -> None:
    sentence = "The cat sat on\nthe mat"
    answer = SentenceAsk(text)({"text": sentence})
    tokenizer = text.subject.tokenizer  # type: ignore[attr-defined]
    ids = [tokenizer.bos_token_id, *tokenizer(sentence, add_special_tokens=False)["input_ids"]]
    assert "".join(token["text"] for token in answer["tokens"][1:]) == sentence
    assert [token["kind"] for token in answer["tokens"]] == ["bos"] + ["token"] * (len(ids) - 1)
    assert not answer["tokens"][0]["read"] and all(token["read"] for token in answer["tokens"][1:])
    x = text.subject.run(Batch(first_example=0, tokens=torch.tensor([ids])), [text.hookpoints[0]])
    dense = text.dictionary.encode(x[text.hookpoints[0]][0]).dense().detach()
    dense[0] = 0
    for position, token in enumerate(answer["tokens"]):
        assert token["total"] == pytest.approx(float(dense[position].sum()), rel=1e-3)
    strongest = text.catalog.latents.column("max")
    named = {latent["index"]: latent for latent in answer["latents"]}
    assert set(named) == set(dense.gt(0).any(0).nonzero()[:, 0].tolist())
    for index, latent in named.items():
        assert [at[0] for at in latent["at"]] == dense[:, index].gt(0).nonzero()[:, 0].tolist()
        for position, value, share in latent["at"]:
            assert value == pytest.approx(float(dense[position, index]), rel=1e-3)
            if strongest[index] > 0:
                assert share == pytest.approx(value / strongest[index], rel=1e-2)
        assert latent["title"] == text.catalog[index].title


def test_an_encoder_gets_the_special_tokens_of_its_tokenizer(encoder: Loaded) -> None:
    tokens = SentenceAsk(encoder).answer("The cat")["tokens"]
    assert [token["kind"] for token in (tokens[0], tokens[-1])] == ["special", "special"]
    assert [token["read"] for token in tokens] == [False] + [True] * (len(tokens) - 2) + [False]


@pytest.mark.parametrize("hookpoint", ["text.blocks.1.hook_resid_post", "text.embedding"])
def test_the_text_tower_reads_sentences_up_to_their_end(image: Loaded, hookpoint: str) -> None:
    width = image.subject.hookpoints()[hookpoint].d_in
    dictionary = TopK(TopKConfig(d_sae=24, k=3), width)
    dictionary.provenance = {"subject": image.subject.id, "hookpoint": hookpoint}
    loaded = Loaded(image.catalog, dictionary.eval(), image.subject, image.inputs)
    ask = SentenceAsk.of(loaded)
    assert ask is not None and ImageAsk.of(loaded) is None
    tokens = ask.answer("the cat")["tokens"]
    if hookpoint == "text.embedding":
        assert tokens[0]["text"] == "the cat" and len(tokens) == 1 and tokens[0]["read"]
        return
    assert [token["text"].strip() for token in tokens[1:-1]] == ["the", "cat"]
    assert [(token["kind"], token["read"]) for token in tokens] == [
        *(("bos", False), ("token", True), ("token", True), ("eot", True)),
    ]
    with pytest.raises(InputsError, match="longer than the 24 tokens"):
        ask.answer("dog " * 30)
    assert len(ask.answer("dog " * 22)["tokens"]) == 24


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": ""}, "empty"),
        ({"text": " \n"}, "empty"),
        ({}, "text: must be str"),
        ({"text": ["a"]}, "text: must be str"),
        ({"text": "a" * 60_000}, "at most 50,000"),
        ({"text": "\ud800"}, "lone surrogate"),
        ({"text": "<pad><eos>"}, None),
    ],
)
def test_what_is_no_sentence_is_refused(text: Loaded, given: dict, message: str | None) -> None:
    if message is None:
        assert SentenceAsk(text)(given)["latents"] == []
        return
    with pytest.raises(InputsError, match=message):
        SentenceAsk(text)(given)


def test_a_text_beyond_the_context_is_refused_with_its_limit(text: Loaded) -> None:
    with pytest.raises(SubjectError, match="at most 64"):
        SentenceAsk(text).answer("The cat sat on the mat. " * 40)


def test_places_are_kept_whole_and_the_same_each_time(image: Loaded) -> None:
    path = image.catalog.path / "latents" / "places.safetensors"
    before = path.read_bytes()
    settings = image.catalog.about.settings
    out = image.catalog.path.parent / "again"
    source, store = image.catalog.about.dictionary["source"], image.catalog.path.parent / "store"
    config = CatalogConfig(
        dictionary=source, store=store, out=out, examples=FEW, map=False, context=settings["context"]
    )
    build(image.dictionary, ActivationStore(store), config, image.subject, image.inputs)
    assert (out / "latents" / "places.safetensors").read_bytes() == before
    assert load_file(path)["places"].shape == (24, 24)


def test_a_phrase_is_compared_with_the_latents_places(image: Loaded) -> None:
    ask = PhraseAsk.of(image)
    assert ask is not None and ask.words == ["cat", "dog"] and ask.templates == ("a photo of a {}.",)
    answer = ask({"text": " the cat "})
    subject = image.subject
    texts = subject.zero_shot_classifier([[f"a photo of a {one}."] for one in ("cat", "dog", "the cat")])  # type: ignore[attr-defined]
    centred = (texts - texts[:2].mean(0)).double()
    places = torch.from_numpy(image.catalog.latents.places).double()
    fires = torch.tensor(image.catalog.latents.column("max")) > 0
    cosine = torch.nn.functional.cosine_similarity(places[:, None], centred[None], dim=2) * fires[:, None]
    best = cosine[:, 2].argsort(descending=True)
    assert [one["index"] for one in answer["latents"]][:5] == best[:5].tolist()
    assert answer["latents"][0]["cosine"] == pytest.approx(float(cosine[best[0], 2]), rel=1e-3)
    assert answer["control"]["n"] == 2
    others = cosine[:, :2].amax(0)
    assert answer["control"]["above"] == pytest.approx(float((others < cosine[best[0], 2]).double().mean()))
    assert ask({"text": "cat"})["control"]["n"] == 1, "a word is no control of itself"


def test_directions_of_the_joint_space_are_places_themselves(joint: Loaded) -> None:
    ask = PhraseAsk.of(joint)
    assert ask is not None
    texts = joint.subject.zero_shot_classifier([["a photo of a cat."], ["a photo of a dog."]])  # type: ignore[attr-defined]
    towards = texts[0] - texts.mean(0)
    alive = joint.catalog.latents.column("max") > 0
    scores = (torch.nn.functional.normalize(joint.dictionary.W_dec, dim=1) @ towards / towards.norm()).detach().numpy()
    top = ask.answer("cat")["latents"][0]
    expected = np.where(alive, scores, 0)
    assert top["index"] == int(expected.argmax()) and top["cosine"] == pytest.approx(expected.max(), rel=1e-3)


def test_a_catalog_without_places_has_no_phrases(image: Loaded, tmp_path: Path) -> None:
    shutil.copytree(image.catalog.path, tmp_path / "old")
    (tmp_path / "old" / "latents" / "places.safetensors").unlink()
    old = Loaded(Catalog.open(tmp_path / "old"), image.dictionary, image.subject, image.inputs)
    assert PhraseAsk.of(old) is None and "phrase" not in asks_of(old)


@pytest.mark.parametrize(("phrase", "message"), [("", "empty"), ("cat " * 30, "longer than the 24 tokens")])
def test_what_is_no_phrase_is_refused(image: Loaded, phrase: str, message: str) -> None:
    ask = PhraseAsk.of(image)
    assert ask is not None
    with pytest.raises(InputsError, match=message):
        ask.answer(phrase)


def test_templates_are_what_stands_around_names() -> None:
    class Some:
        label_names: ClassVar = {"class": ["ant", "red_fox"]}
        classes = type("C", (), {"family": "class", "prompts": [["an ant", "pant ant"], ["a red fox", "nothing"]]})

    assert words_and_templates(Some()) == (["ant", "red fox"], ("an {}", "pant {}", "a {}"))
    Some.classes.prompts = [["insect"], ["animal"]]
    assert words_and_templates(Some())[1] == PLAIN
    assert words_and_templates(object()) == ([], PLAIN)


def test_a_picture_shows_what_fires_and_where(image: Loaded) -> None:
    content = picture_bytes(size=(90, 70))
    answer = ImageAsk(image)({"image": base64.b64encode(content).decode()})
    frame = image.subject.preprocess(Image.open(io.BytesIO(content)))  # type: ignore[attr-defined]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["frame"]))))
    np.testing.assert_array_equal(shown, frame.permute(1, 2, 0).numpy())
    batch = Batch(first_example=0, images=frame[None])
    dense = image.dictionary.encode(image.subject.run(batch, image.hookpoints)[image.hookpoints[0]][0]).dense().detach()
    patches = dense[image.subject.rows(batch, image.grid).kind[0] == Kind.PATCH]
    assert answer["grid"] == [4, 4] and answer["n_fired"] == int(patches.gt(0).any(0).sum())
    for latent in answer["latents"]:
        assert latent["value"] == pytest.approx(float(patches[:, latent["index"]].max()), rel=1e-3)
        np.testing.assert_allclose(latent["values"], patches[:, latent["index"]], rtol=1e-3)
    shares = [latent["share"] or 0 for latent in answer["latents"]]
    assert shares == sorted(shares, reverse=True)


def test_one_vector_for_a_picture_has_no_map(joint: Loaded) -> None:
    answer = ImageAsk(joint).answer(picture_bytes())
    assert answer["grid"] is None and answer["latents"][0]["values"] is None


SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><script>alert(1)</script></svg>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no picture"),
        (b"hello", "no picture"),
        (SVG, "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        (picture_bytes(size=(64, 64))[:-40], "damaged"),
        (picture_bytes(size=(20_000, 20)), f"at most {MOST_SIDE:,} on a side"),
        (picture_bytes(size=(9_000, 9_000)), "50,000,000"),
        (picture_bytes(size=(4_000, 2)), "20 times"),
        ("not base64!", "not base64"),
        (7, "must be base64"),
    ],
)
def test_what_is_no_picture_is_refused(image: Loaded, content: object, message: str) -> None:
    with pytest.raises(InputsError, match=message):
        frame_of(content, image.subject)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
def test_raster_formats_are_read(image: Loaded, form: str) -> None:
    assert frame_of(picture_bytes(form=form), image.subject).shape == (3, 32, 32)


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_texts_are_pooled_over_their_tokens(text: Loaded, pool: str) -> None:
    answer = ContrastAsk(text)({"a": {"texts": WORDS[:2]}, "b": {"texts": WORDS[2:]}, "pool": pool})
    alone = [SentenceAsk(text).answer(one) for one in WORDS]
    n_read = [sum(token["read"] for token in one["tokens"]) for one in alone]
    for latent in answer["latents"]:
        values = []
        for one, n in zip(alone, n_read, strict=True):
            at = next((other["at"] for other in one["latents"] if other["index"] == latent["index"]), [])
            activations = [value for _, value, _ in at]
            values.append(max(activations, default=0) if pool == "max" else sum(activations) / n)
        assert latent["values"][0] + latent["values"][1] == pytest.approx(values, rel=2e-3)
    assert [one["names"] for one in answer["sets"]] == [WORDS[:2], WORDS[2:]]
    assert answer["threshold"] is None and answer["n_pass"] == 0 and answer["exact"]
    assert answer["smallest_p"] == pytest.approx(2 / 6, rel=1e-3)


def test_pictures_of_two_colours_are_told_apart(image: Loaded) -> None:
    random = np.random.default_rng(3)

    def pictures(name: str) -> list[bytes]:
        noise = random.integers(-10, 11, (12, 3))
        return [picture_bytes(tuple((np.array(COLOURS[name]) + one).tolist())) for one in noise]

    answer = ContrastAsk(image).answer({"images": pictures("cat")}, {"images": pictures("dog")})
    assert answer["n_pass"] > 0 and any(one["passes"] and one["auc"] == 1 for one in answer["latents"])
    assert abs(answer["neuron"]["auc"] - 0.5) == 0.5 and answer["random"]["p"] <= 1
    assert all(len(one["thumbnails"]) == 12 for one in answer["sets"])


def test_examples_are_chosen_by_label(image: Loaded) -> None:
    chosen = choose(image.inputs, "class=dog", 10)
    labels = image.inputs.labels(0, len(image.inputs))["class"]  # type: ignore[attr-defined]
    assert len(chosen.places) == 10 and all(labels[example] == 1 for example, _ in chosen.places)
    assert chosen.places == choose(image.inputs, "class!=cat", 10).places
    answer = ContrastAsk(image).answer({"label": "class=cat"}, {"label": "class!=cat"}, limit=15)
    assert [len(one["names"]) for one in answer["sets"]] == [15, 15] and answer["n_pass"] > 0
    with pytest.raises(InputsError, match="first set: no example"):
        ContrastAsk(image).answer({"label": "class=cat"}, {"label": "class=cat"}, limit=15)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("cat", "family=value"),
        ("clas=cat", "Did you mean 'class'"),
        ("class=cta", "Did you mean 'cat'"),
        (3, "family=value"),
    ],
)
def test_labels_that_there_are_not_are_refused(image: Loaded, label: object, message: str) -> None:
    with pytest.raises(InputsError, match=message):
        choose(image.inputs, label, 5)


def test_one_token_of_each_example_has_its_label(text: Loaded) -> None:
    class TokenLabels:
        label_names: ClassVar = {"role": ["odd", "even"]}
        bookkeeping = ()
        classes = None

        def __len__(self) -> int:
            return 40

        def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
            found = np.arange(start, stop)[:, None] + np.arange(16)
            found[:, 0] = -1
            return {"role": np.where(found < 0, -1, found % 2)}

        def batch(self, start: int, stop: int) -> Batch:
            return text.inputs.batch(start % 8, start % 8 + stop - start)

        fingerprint, describe = "", dict

    inputs = TokenLabels()
    chosen = choose(inputs, "role=even", 12)  # type: ignore[arg-type]
    assert chosen.per_token and len({example for example, _ in chosen.places}) == 12
    assert all(position > 0 and (example + position) % 2 for example, position in chosen.places)
    loaded = Loaded(text.catalog, text.dictionary, text.subject, inputs)  # type: ignore[arg-type]
    answer = ContrastAsk(loaded).answer({"label": "role=even"}, {"label": "role=odd"}, limit=6, n_permutations=20)
    assert all(one["positions"] == 1 for one in answer["sets"])


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({}, "a: must be dict"),
        ({"a": {"texts": []}, "b": {"texts": ["x"]}}, "first set: needs a list of 1 to 500"),
        ({"a": {"texts": "x"}, "b": {"texts": ["x"]}}, "got str"),
        ({"a": {"texts": ["x"]}, "b": {"images": ["x"]}}, "second set: needs texts or a label, got images"),
        ({"a": {"texts": ["x"]}, "b": {"texts": [""]}}, "empty"),
        ({"a": {"texts": ["x"]}, "b": {"texts": ["<eos>"]}}, "no token"),
        ({"a": {"texts": ["x"]}, "b": {"label": "role=x"}}, "no labels"),
        ({"a": {"texts": ["x"]}, "b": {"texts": ["y"]}, "pool": "min"}, "max or mean"),
        ({"a": {"texts": ["x"]}, "b": {"texts": ["y"]}, "n_permutations": 10**9}, "from 1 to 10,000"),
        ({"a": {"texts": ["x"]}, "b": {"texts": ["y"]}, "limit": True}, "limit: must be int"),
        ({"a": {"texts": ["x"] * 501}, "b": {"texts": ["y"]}}, "got 501"),
    ],
)
def test_what_is_no_contrast_is_refused(text: Loaded, question: dict, message: str) -> None:
    with pytest.raises(InputsError, match=message):
        ContrastAsk(text)(question)
