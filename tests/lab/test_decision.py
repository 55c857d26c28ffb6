"""Decisions come apart exactly, and what is said to flip them does."""

import pytest
import torch
from toy_judged import NAMES, bench

from sae.errors import EvaluationError
from sae.lab.bias.decision import account, contributions, without
from sae.lab.bias.population import population


@pytest.fixture(scope="module")
def made():
    found = bench(lean=0.3)
    return found, population(found, None, ["mark"])


def test_parts_sum_to_the_logits_exactly(made) -> None:
    found, judged = made
    towards = judged.judge.classifier[2]
    latents, bias, error = contributions(judged.judge, found.dictionary, judged.x, towards)
    total = latents.sum(1) + bias + error + judged.judge.logit_bias
    assert torch.allclose(total, judged.judge.logits(judged.x)[:, 2], atol=1e-4)
    assert (latents != 0).sum(1).max() <= 3


def test_an_account_tells_the_lead_and_what_flips_it(made) -> None:
    found, judged = made
    for item in range(0, 60, 7):
        told = account(judged.judge, found.dictionary, judged.x[item])
        logits = judged.judge.logits(judged.x[[item]])[0]
        assert told.judged == NAMES[int(logits.argmax())] == NAMES[int(judged.truth[item])]
        assert sum(told.parts.values()) == pytest.approx(told.margin, abs=1e-3)
        assert told.margin == pytest.approx(float(logits.topk(2).values.diff().neg()), abs=1e-4)
        assert told.flip[0] == int(judged.truth[item]), "its class's latent comes first"
        now = judged.judge.logits(without(found.dictionary, judged.x[[item]], told.flip))[0]
        assert NAMES[int(now.argmax())] == told.after != told.judged
        if len(told.flip) > 1:
            fewer = judged.judge.logits(without(found.dictionary, judged.x[[item]], told.flip[:-1]))[0]
            assert NAMES[int(fewer.argmax())] == told.judged
        assert told.predicted == pytest.approx(told.margin - sum(told.parts[one] for one in told.flip))


def test_removal_keeps_the_sign_that_subtraction_predicts(made) -> None:
    found, judged = made
    told = account(judged.judge, found.dictionary, judged.x[0], rival="owl")
    now = judged.judge.logits(without(found.dictionary, judged.x[[0]], told.flip))[0]
    left = float(now[0] - now[NAMES.index("owl")])
    assert (left > 0) == (told.predicted > 0)


def test_sentences_name_latents_and_say_when_nothing_flips(made) -> None:
    found, judged = made
    text = account(judged.judge, found.dictionary, judged.x[0]).told({0: "thing=cat"})
    assert text.startswith("Judged cat (") and "0 (thing=cat) +" in text and "judged again" in text
    dictionary = bench().dictionary
    dictionary.W_dec.mul_(1e-3)
    told = account(judged.judge, dictionary, judged.x[0])
    assert told.flip == () and told.after == told.judged and "does not change it" in told.told({})


def test_a_rival_that_is_none_is_refused(made) -> None:
    found, judged = made
    with pytest.raises(EvaluationError, match=r"no judgement 'owll'.* Did you mean 'owl'"):
        account(judged.judge, found.dictionary, judged.x[0], rival="owll")
    with pytest.raises(EvaluationError, match="'cat' is what the image was judged"):
        account(judged.judge, found.dictionary, judged.x[0], rival="cat")
