"""What a picture is written in while it is optimised: pixels, frequencies, or phases alone.

Steps of the same size in other coordinates lead to other pictures. In pixels they lead to noise; in frequencies scaled
by 1/f and colours that do not vary together (Olah, Mordvintsev, Schubert 2017, *Feature Visualization*) to smooth ones;
with the magnitude of every frequency held at that of the data and only the phase left (MACO: Fel et al. 2023,
arXiv 2306.06805) to pictures that are no brighter or rougher at any scale than real ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Pictures = Float[Tensor, "n 3 height width"]
"""In 0..1."""
MIN_DEVIATION = 1e-3
"""Of a direction of colour, so that data in black and white can be decorrelated."""
EDGE = 0.02
"""How near to 0 and 1 the pixels of a picture to start from may come, where a sigmoid makes them."""


@dataclass(frozen=True)
class Natural:
    """What pictures of some data have in common.

    Attributes:
        mean: colour.
        mix: [3 3], the symmetric root of the colours' covariance; makes colours like the data's of uncorrelated ones.
        magnitude: of the spectrum of uncorrelated colours, less the mean, a mean over pictures; unitary scaling.
        log_power: of the radial spectrum of luminance, a mean over pictures.
        variation: the median `total_variation`.
        size: height and width.
    """

    mean: Float[Tensor, " 3"]
    mix: Float[Tensor, "3 3"]
    magnitude: Float[Tensor, "3 height half_width"]
    log_power: Float[Tensor, " radii"]
    variation: Float[Tensor, ""]
    size: tuple[int, int]

    @classmethod
    def of(cls, frames: UInt8[Tensor, "n 3 height width"]) -> "Natural":
        """Measure them on frames."""
        pictures = frames.float() / 255
        mean = pictures.mean((0, 2, 3))
        centred = pictures - mean.view(3, 1, 1)
        colours = centred.transpose(0, 1).flatten(1)
        values, vectors = torch.linalg.eigh(colours @ colours.T / colours.shape[1])
        deviation = values.clamp_min(MIN_DEVIATION**2).sqrt()
        mix, unmix = (vectors * deviation) @ vectors.T, (vectors / deviation) @ vectors.T
        flat = torch.einsum("ij,njhw->nihw", unmix, centred)
        magnitude = torch.fft.rfft2(flat, norm="ortho").abs().mean(0)
        return cls(
            mean,
            mix,
            magnitude,
            radial_log_power(pictures).mean(0),
            total_variation(pictures).median(),
            (frames.shape[2], frames.shape[3]),
        )

    def coloured(self, flat: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
        """Give uncorrelated colours those of the data, less their mean."""
        return torch.einsum("ij,njhw->nihw", self.mix, flat)

    def uncoloured(self, colours: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
        """Undo `coloured`."""
        return torch.einsum("ij,njhw->nihw", torch.linalg.inv(self.mix), colours)


class Parametrisation(Protocol):
    """Pictures as a function of tensors that are optimised."""

    parameters: list[Tensor]

    def pictures(self) -> Pictures:
        """Return the pictures that the parameters stand for now; gradients flow."""
        ...


class Pixels:
    """A sigmoid of one number for every pixel and colour.

    Args:
        natural: gives the mean colour to start around, and the size.
        n: how many pictures.
        generator: of the noise to start from.
        start: pictures to start from instead.
    """

    def __init__(self, natural: Natural, n: int, generator: torch.Generator, start: Pictures | None = None) -> None:
        if start is None:
            start = natural.mean.view(3, 1, 1) + 0.01 * torch.randn(n, 3, *natural.size, generator=generator)
        self.parameters = [_logit(start).requires_grad_()]

    def pictures(self) -> Pictures:
        return self.parameters[0].sigmoid()


class Fourier:
    """A sigmoid of uncorrelated colours whose frequencies are scaled by 1/f (Olah et al. 2017).

    Args:
        natural: gives the colours and the size.
        n: how many pictures.
        generator: of the noise to start from.
        start: pictures to start from instead.
        decay: power of the frequency that scales are divided by.
    """

    def __init__(
        self,
        natural: Natural,
        n: int,
        generator: torch.Generator,
        start: Pictures | None = None,
        decay: float = 1.0,
    ) -> None:
        self.natural, self.size = natural, natural.size
        self.scale = frequencies(self.size).clamp_min(1 / max(self.size)) ** -decay
        # The mean slope of the sigmoid around the mean colour: parameters of size 1 then have the data's contrast.
        self.slope = (natural.mean * (1 - natural.mean)).clamp_min(EDGE).view(3, 1, 1)
        self.centre = _logit(natural.mean).view(3, 1, 1)
        if start is None:
            spectrum = 0.01 * torch.randn(n, *natural.magnitude.shape, 2, generator=generator)
        else:
            flat = natural.uncoloured((_logit(start) - self.centre) * self.slope)
            spectrum = torch.view_as_real(torch.fft.rfft2(flat, norm="ortho") / self.scale).contiguous()
        self.parameters = [spectrum.requires_grad_()]

    def pictures(self) -> Pictures:
        spectrum = torch.view_as_complex(self.parameters[0]) * self.scale
        flat = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return (self.centre + self.natural.coloured(flat) / self.slope).sigmoid()


class Maco:
    """Phases of a spectrum whose magnitudes are those of the data (Fel et al. 2023).

    Colours outside 0..1 are cut off in `pictures`; `signal` is what they are cut from. In the article a sigmoid
    squeezes the signal, which changes magnitudes more.

    Args:
        natural: gives magnitudes, colours and the size.
        n: how many pictures.
        generator: of the phases to start from.
        start: pictures from which phases are taken instead.
    """

    def __init__(self, natural: Natural, n: int, generator: torch.Generator, start: Pictures | None = None) -> None:
        self.natural, self.size = natural, natural.size
        if start is None:
            phase = 2 * torch.pi * torch.rand(n, *natural.magnitude.shape, generator=generator)
        else:
            flat = natural.uncoloured(start - natural.mean.view(3, 1, 1))
            phase = torch.fft.rfft2(flat, norm="ortho").angle()
        self.parameters = [phase.requires_grad_()]

    def signal(self) -> Float[Tensor, "n 3 height width"]:
        """Return uncorrelated colours; the magnitudes of their spectrum are exactly those of the data."""
        phase = self.parameters[0]
        # A real signal has opposite phases at opposite frequencies, which meet in the first and the last column.
        opposite = phase.flip(-2).roll(1, -2)
        own = torch.zeros(phase.shape[-1], dtype=torch.bool)
        own[0] = True
        own[-1] = self.size[1] % 2 == 0
        phase = torch.where(own, (phase - opposite) / 2, phase)
        return torch.fft.irfft2(torch.polar(self.natural.magnitude.expand_as(phase), phase), s=self.size, norm="ortho")

    def pictures(self) -> Pictures:
        return (self.natural.mean.view(3, 1, 1) + self.natural.coloured(self.signal())).clamp(0, 1)


PARAMETRISATIONS: dict[str, Callable[..., Parametrisation]] = {"fourier": Fourier, "maco": Maco, "pixel": Pixels}


def frequencies(size: tuple[int, int]) -> Float[Tensor, "height half_width"]:
    """Return the frequency of every entry of a half spectrum, in cycles per pixel."""
    return (torch.fft.fftfreq(size[0])[:, None] ** 2 + torch.fft.rfftfreq(size[1]) ** 2).sqrt()


def radial_log_power(pictures: Pictures) -> Float[Tensor, "n radii"]:
    """Return the logarithm of the mean power of luminance at every whole number of cycles per picture, 1 and up."""
    size = tuple(pictures.shape[2:])
    power = torch.fft.rfft2(pictures.mean(1), norm="ortho").abs() ** 2
    radius = (frequencies(size) * min(size)).round().long().flatten().to(pictures.device)  # type: ignore[arg-type]
    n_radii = min(size) // 2 + 1
    kept = (radius > 0) & (radius < n_radii)
    total = power.new_zeros(len(pictures), n_radii).index_add_(1, radius[kept], power.flatten(1)[:, kept])
    return (total[:, 1:] / radius[kept].bincount(minlength=n_radii)[1:] + 1e-8).log()


def spectrum_distance(pictures: Pictures, natural: Natural) -> Float[Tensor, " n"]:
    """Return the root mean square difference between a picture's log radial power and the data's mean, in nats."""
    return (radial_log_power(pictures) - natural.log_power).square().mean(1).sqrt()


def total_variation(pictures: Pictures) -> Float[Tensor, " n"]:
    """Return the mean absolute difference between neighbouring pixels, across plus down."""
    down, across = pictures.diff(dim=2).abs().mean((1, 2, 3)), pictures.diff(dim=3).abs().mean((1, 2, 3))
    return down + across


def _logit(pictures: Tensor) -> Tensor:
    return pictures.clamp(EDGE, 1 - EDGE).logit()
