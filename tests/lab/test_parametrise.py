"""Parametrisations give pictures, keep what they say they keep, and take up pictures to start from."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.lab.visualise.parametrise import (
    Fourier,
    Maco,
    Natural,
    Pixels,
    radial_log_power,
    spectrum_distance,
    total_variation,
)

WAYS = (Fourier, Maco, Pixels)


def natural(height: int = 16, width: int = 16, n: int = 40) -> Natural:
    frames = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(frames, 3, 1, 1) * torch.tensor([1.0, 0.8, 0.3]).view(3, 1, 1)
    return Natural.of((255 * smooth).to(torch.uint8))


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("make", WAYS)
@pytest.mark.parametrize("size", [(16, 16), (9, 15), (12, 7)])
def test_pictures_have_the_shape_the_range_and_a_gradient(make: type, size: tuple[int, int]) -> None:
    made = make(natural(*size), 5, draws())
    pictures = made.pictures()
    assert pictures.shape == (5, 3, *size)
    assert pictures.min() >= 0 and pictures.max() <= 1
    pictures.square().sum().backward()
    assert made.parameters[0].grad.abs().sum() > 0
    assert torch.equal(pictures, make(natural(*size), 5, draws()).pictures()), "the seed is enough"


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 12), st.integers(3, 12), st.integers(0, 99))
def test_maco_keeps_every_magnitude_whatever_the_phases(height: int, width: int, seed: int) -> None:
    given_ = natural(height, width)
    made = Maco(given_, 3, torch.Generator().manual_seed(seed))
    made.parameters[0].data += 5 * torch.randn(made.parameters[0].shape, generator=draws())
    found = torch.fft.rfft2(made.signal(), norm="ortho").abs()
    torch.testing.assert_close(found, given_.magnitude.expand_as(found), atol=1e-4, rtol=1e-4)


def test_maco_is_as_far_from_the_data_as_its_clipping_makes_it() -> None:
    given_ = natural()
    noise = spectrum_distance(torch.rand(4, 3, 16, 16, generator=draws()), given_)
    assert (spectrum_distance(Maco(given_, 4, draws()).pictures(), given_) < 0.5 * noise).all()


@pytest.mark.parametrize("make", [Fourier, Pixels])
@pytest.mark.parametrize("size", [(16, 16), (9, 15)])
def test_a_picture_to_start_from_is_where_it_starts(make: type, size: tuple[int, int]) -> None:
    start = 0.1 + 0.8 * torch.rand(2, 3, *size, generator=draws())
    torch.testing.assert_close(make(natural(*size), 2, draws(), start).pictures(), start, atol=2e-3, rtol=0)


def test_colours_are_uncorrelated_with_variance_one_and_come_back() -> None:
    frames = (255 * torch.rand(50, 3, 8, 8, generator=draws()) * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1)).byte()
    given_ = Natural.of(frames)
    centred = frames.float() / 255 - given_.mean.view(3, 1, 1)
    flat = given_.uncoloured(centred)
    torch.testing.assert_close(torch.cov(flat.transpose(0, 1).flatten(1)), torch.eye(3), atol=2e-2, rtol=0)
    torch.testing.assert_close(given_.coloured(flat), centred, atol=1e-4, rtol=0)


def test_pictures_in_black_and_white_have_colours_too() -> None:
    grey = torch.rand(20, 1, 8, 8, generator=draws()).expand(-1, 3, -1, -1)
    assert Fourier(Natural.of((255 * grey).byte()), 2, draws()).pictures().isfinite().all()


def test_total_variation_is_that_of_the_sum() -> None:
    pictures = torch.rand(2, 3, 5, 4, generator=draws())
    one = pictures[1].tolist()
    down = sum(abs(c[i + 1][j] - c[i][j]) for c in one for i in range(4) for j in range(4))
    across = sum(abs(c[i][j + 1] - c[i][j]) for c in one for i in range(5) for j in range(3))
    assert total_variation(pictures)[1].item() == pytest.approx(down / 48 + across / 45, rel=1e-5)


def test_the_radial_spectrum_of_a_wave_peaks_at_its_frequency() -> None:
    wave = 0.5 + 0.4 * torch.sin(2 * torch.pi * 3 * torch.arange(16) / 16).expand(1, 3, 16, 16)
    assert int(radial_log_power(wave)[0].argmax()) == 2, "radii count from one cycle per picture"
