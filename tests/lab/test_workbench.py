"""What the workbench puts to work on its sample."""

import pytest
import torch
from toy_joint import bench

from sae.errors import EvaluationError


def test_a_dictionary_of_which_nothing_fires_is_refused_where_its_latents_are_put_to_work() -> None:
    made = bench()
    made.dictionary.W_enc_rows.zero_()
    made.dictionary.b_enc.fill_(-1)
    for units in (lambda: made.latents, lambda: made.random):
        with pytest.raises(EvaluationError, match="no latent fires in the sample of 400 vectors"):
            units()
    assert made.neurons.alive.any()


def test_random_directions_fire_as_often_as_their_latents() -> None:
    made = bench()
    rates = [units.row_responses.n_fired.double() / made.sample.n_items for units in (made.latents, made.random)]
    torch.testing.assert_close(rates[1], rates[0], atol=1e-2, rtol=0)
