"""Top-k fused with the encoder's product; exact up to equal values.

Latents are dealt into groups, one from each of as many equal stretches of a row. One kernel computes tiles of
pre-activations and writes, for every group, the `KEPT` largest and which members they are: four bytes and one each.
torch.topk searches these only. Let T be the k-th largest of what was kept. All kept entries being pre-activations, the
true k-th largest is at least T; and a group can hide something above T only if all it kept is above T. A second kernel
looks for such groups, multiplies their members again and lets what is above T take the place of the least found.

    n_groups          d_sae / 128, or 4 to 8 times k where that is more
    memory per row    20 n_groups bytes; k 64 at d_sae 2**17: 20 KB where the dense row has 512 KB
    second looks      at most (k - 1) / 4 groups of a row. If the k largest fall anywhere, n_groups times the chance of
                      4 or more in one, P(Poisson(k / n_groups) >= 4): 0.03 groups for k 64 among 256, so that a
                      second look is rare where the first took d_sae products

A k above d_sae / 32 leaves groups of one, and then everything is kept. Batches are therefore worked off in chunks of
rows that keep at most `CHUNK_BYTES`, whatever k is. The largest of the dead latents come out of the same tiles in the
same way, and tiles without a dead latent skip it. Considered instead: writing only the maxima of groups, and a second
product that keeps what is at or above the k-th largest maximum. It needs no second looks, but twice the arithmetic.
"""

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.kernels.gpu.product import BLOCK_LATENTS, launch_options, operands, pre_activations, sum_dtype

KEPT = 4
"""Entries kept of every group."""

SMALLEST_GROUP = 8
"""Below this size keeping everything takes about as much memory as keeping four and their places."""

CHUNK_BYTES = 2**28
"""Memory for what the groups of a chunk of rows keep."""

BLOCK_ROWS = 128
"""Most rows of a tile."""

GROUPS_AT_ONCE = 1024
"""Groups that are searched together for those to look into again."""

ROW_BLOCKS = 8
"""Blocks of rows that visit a tile of latents one after the other, while it is in cache."""


class _Search(NamedTuple):
    """One selection: how many, among which latents, and the largest entries of every group.

    The r-th of group g is latent `members[:, r, g] * n_groups + g`. In an absolute search values are distances from
    zero, and ~members stands for a member on the negative side.
    """

    k: int
    dead: Bool[Tensor, " d_sae"] | None
    absolute: bool
    values: Float[Tensor, "batch kept n_groups"]
    members: Int[Tensor, "batch kept n_groups"]


def select_topk(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
    dead: Bool[Tensor, " d_sae"] | None,
    k_aux: int,
    absolute: bool = False,
) -> tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]:
    """Return values and latents of the k largest pre-activations, then of the k_aux largest among the dead.

    With `absolute` the k largest are those furthest from zero, on either side. Where fewer latents are dead, missing
    values are -inf and missing latents 0. With k = 0 only tiles of latents with a dead one are computed.
    """
    dtype, d_sae = weight.dtype, len(weight)
    x, weight = operands(x, weight)
    kinds: list[tuple[int, Tensor | None, bool]] = [(k, None, absolute)] if k else []
    if dead is not None and k_aux:
        kinds.append((k_aux, dead.to(torch.uint8), False))
    values = x.new_empty(len(x), sum(size for size, _, _ in kinds), dtype=dtype)
    indices = torch.empty_like(values, dtype=torch.int32)
    if not kinds:
        return values, indices
    chunk = max(CHUNK_BYTES // sum(_bytes_per_row(d_sae, size) for size, _, _ in kinds) // 128, 1) * 128
    for start in range(0, len(x), chunk):
        rows = slice(start, start + chunk)
        searches = [_Search(*kind, *_room(x[rows], d_sae, kind[0])) for kind in kinds]
        _keep(x[rows], weight, bias, searches)
        found = [_best(x[rows], weight, bias, search) for search in searches]
        values[rows] = torch.cat([best for best, _ in found], 1)
        indices[rows] = torch.cat([latents for _, latents in found], 1)
    return values, indices


def group_size(d_sae: int, k: int) -> int:
    """Return the largest power of two that leaves 4 k groups, at most a tile; 1 if it is too small to be of use."""
    size = 1 << max(d_sae // (4 * k), 1).bit_length() - 1
    return min(size, BLOCK_LATENTS) if size >= SMALLEST_GROUP else 1


def _kept_shape(d_sae: int, k: int) -> tuple[int, int]:
    group = group_size(d_sae, k)
    return min(group, KEPT), triton.cdiv(d_sae, BLOCK_LATENTS) * BLOCK_LATENTS // group


def _bytes_per_row(d_sae: int, k: int) -> int:
    n_kept, n_groups = _kept_shape(d_sae, k)
    return 5 * n_kept * n_groups


def _room(x: Tensor, d_sae: int, k: int) -> tuple[Tensor, Tensor]:
    values = x.new_empty(len(x), *_kept_shape(d_sae, k), dtype=sum_dtype(x.dtype))
    return values, torch.empty_like(values, dtype=torch.int8)


def _keep(x: Tensor, weight: Tensor, bias: Tensor, searches: list[_Search]) -> None:
    """Fill in what groups keep, for all searches in one pass over the latents."""
    (batch, d_in), d_sae = x.shape, len(weight)
    first, last = searches[0], searches[-1]
    if last.dead is not None:  # where no latent of a tile is dead, this stays
        last.values.fill_(-torch.inf)
        last.members.zero_()
    options = launch_options(batch, x.dtype, BLOCK_ROWS)
    grid = (triton.cdiv(batch, options["BLOCK_ROWS"]) * triton.cdiv(d_sae, BLOCK_LATENTS),)
    with torch.cuda.device_of(x):
        _keep_kernel[grid](
            *(x, weight, bias, bias if last.dead is None else last.dead),
            *(first.values, first.members, last.values, last.members, batch, d_sae, d_in),
            GROUP=0 if first.dead is not None else group_size(d_sae, first.k),
            DEAD_GROUP=0 if last.dead is None else group_size(d_sae, last.k),
            ABSOLUTE=first.absolute,
            KEPT=KEPT,
            ROW_BLOCKS=ROW_BLOCKS,
            **options,
        )


def _best(x: Tensor, weight: Tensor, bias: Tensor, search: _Search) -> tuple[Tensor, Tensor]:
    """Choose among what groups kept, then look into those that may hide more."""
    d_sae, k, n_groups = len(weight), search.k, search.values.shape[2]
    values, places = search.values.flatten(1).topk(k, sorted=False)
    members = search.members.flatten(1).gather(1, places).to(torch.int32)
    group = (places % n_groups).to(torch.int32)
    indices = torch.where(members < 0, ~(~members * n_groups + group), members * n_groups + group)
    if group_size(d_sae, k) > KEPT:
        with torch.cuda.device_of(x):
            _look_again_kernel[(len(x),)](
                *(x, weight, bias, bias if search.dead is None else search.dead, search.values, search.members),
                *(values, indices, d_sae, x.shape[1], k, n_groups),
                AMONG_DEAD=search.dead is not None,
                ABSOLUTE=search.absolute,
                GROUP=group_size(d_sae, k),
                KEPT=KEPT,
                BLOCK_K=triton.next_power_of_2(k),
                BLOCK_GROUPS=min(GROUPS_AT_ONCE, triton.next_power_of_2(n_groups)),
                BLOCK_IN=min(32, triton.next_power_of_2(x.shape[1])),
            )
    indices = indices.masked_fill(values == -torch.inf, 0)
    return torch.where(indices < 0, -values, values), torch.where(indices < 0, ~indices, indices)


@triton.jit
@no_type_check
def _keep_kernel(
    x,
    weight,
    bias,
    dead,
    values,
    members,
    dead_values,
    dead_members,
    batch,
    d_sae,
    d_in,
    GROUP: tl.constexpr,
    DEAD_GROUP: tl.constexpr,
    ABSOLUTE: tl.constexpr,
    KEPT: tl.constexpr,
    ROW_BLOCKS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_LATENTS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile: its latents are `n_tiles` apart, so it holds whole groups of every size."""
    n_row_blocks, n_tiles = tl.cdiv(batch, BLOCK_ROWS), tl.cdiv(d_sae, BLOCK_LATENTS)
    program = tl.program_id(0)
    row_block, tile = tl.swizzle2d(program // n_tiles, program % n_tiles, n_row_blocks, n_tiles, ROW_BLOCKS)
    rows = row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    latents = tl.arange(0, BLOCK_LATENTS) * n_tiles + tile
    SUM: tl.constexpr = values.dtype.element_ty
    is_dead = tl.zeros([BLOCK_LATENTS], tl.int1)
    if DEAD_GROUP > 0:
        is_dead = tl.load(dead + latents, latents < d_sae, 0) > 0
    some_dead = tl.max(is_dead.to(tl.int32), 0) > 0
    if GROUP > 0:
        pre = pre_activations(x, weight, bias, rows, latents, batch, d_sae, d_in, SUM, BLOCK_IN, PRECISION)
        _keep_largest(pre, values, members, rows, tile, n_tiles, batch, GROUP, KEPT, ABSOLUTE)
        if DEAD_GROUP > 0:  # noqa: SIM102  (known when compiling, the other is not)
            if some_dead:
                pre = tl.where(is_dead[None, :], pre, float("-inf"))
                _keep_largest(pre, dead_values, dead_members, rows, tile, n_tiles, batch, DEAD_GROUP, KEPT, False)
    elif some_dead:
        pre = pre_activations(x, weight, bias, rows, latents, batch, d_sae, d_in, SUM, BLOCK_IN, PRECISION)
        pre = tl.where(is_dead[None, :], pre, float("-inf"))
        _keep_largest(pre, dead_values, dead_members, rows, tile, n_tiles, batch, DEAD_GROUP, KEPT, False)


@triton.jit
@no_type_check
def _keep_largest(
    pre, values, members, rows, tile, n_tiles, batch, GROUP: tl.constexpr, KEPT: tl.constexpr, ABSOLUTE: tl.constexpr
):
    """Write the largest entries of every group of a tile, from the largest on; equal ones in the order of latents."""
    N_GROUPS: tl.constexpr = pre.shape[1] // GROUP
    grouped = tl.reshape(pre, [pre.shape[0], GROUP, N_GROUPS])
    negative = grouped < 0
    if ABSOLUTE:
        grouped = _distance(grouped)
    member = tl.arange(0, GROUP)[None, :, None]
    groups = tl.arange(0, N_GROUPS) * n_tiles + tile
    n_groups = n_tiles * N_GROUPS
    N_KEPT: tl.constexpr = min(GROUP, KEPT)
    places = rows.to(tl.int64)[:, None] * (N_KEPT * n_groups) + groups[None, :]
    real = (rows < batch)[:, None]
    for rank in tl.static_range(N_KEPT):
        largest, at = tl.max(grouped, 1, return_indices=True)
        here = member == at[:, None, :]
        if ABSOLUTE:
            at = tl.where(tl.max((here & negative).to(tl.int32), 1) > 0, ~at, at)
        tl.store(values + places + rank * n_groups, largest, real)
        tl.store(members + places + rank * n_groups, at.to(tl.int8), real)
        grouped = tl.where(here, float("-inf"), grouped)


@triton.jit
@no_type_check
def _look_again_kernel(
    x,
    weight,
    bias,
    dead,
    kept_values,
    kept_members,
    values,
    indices,
    d_sae,
    d_in,
    k,
    n_groups,
    AMONG_DEAD: tl.constexpr,
    ABSOLUTE: tl.constexpr,
    GROUP: tl.constexpr,
    KEPT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    """One row: put members that their group did not keep in the place of the least found, while they are larger."""
    row = tl.program_id(0).to(tl.int64)
    slots, lanes = tl.arange(0, BLOCK_K), tl.arange(0, GROUP)
    best = tl.load(values + row * k + slots, slots < k, float("inf"))
    found = tl.load(indices + row * k + slots, slots < k, 0)
    bound = tl.min(best, 0)
    kept_values += row * KEPT * n_groups
    kept_members += row * KEPT * n_groups
    for first in range(0, n_groups, BLOCK_GROUPS):
        groups = first + tl.arange(0, BLOCK_GROUPS)
        least = tl.load(kept_values + (KEPT - 1) * n_groups + groups, groups < n_groups, float("-inf"))
        while tl.max(least, 0) > bound:
            group = first + tl.argmax(least, 0)
            latents = lanes * n_groups + group
            hidden = latents < d_sae
            if AMONG_DEAD:
                hidden = hidden & (tl.load(dead + latents, hidden, 0) > 0)
            for rank in tl.static_range(KEPT):
                kept = tl.load(kept_members + rank * n_groups + group).to(tl.int32)
                hidden = hidden & (lanes != tl.where(kept < 0, ~kept, kept))
            pre = _row_product(x + row * d_in, weight, bias, latents, hidden, d_in, values.dtype.element_ty, BLOCK_IN)
            if ABSOLUTE:
                latents = tl.where(pre < 0, ~latents, latents)
                pre = _distance(pre)
            while tl.max(pre, 0) > bound:
                at, worst = tl.argmax(pre, 0), tl.argmin(best, 0)
                best = tl.where(slots == worst, tl.max(pre, 0), best)
                found = tl.where(slots == worst, tl.sum(tl.where(lanes == at, latents, 0), 0), found)
                pre = tl.where(lanes == at, float("-inf"), pre)
                bound = tl.min(best, 0)
            least = tl.where(groups == group, float("-inf"), least)
    tl.store(values + row * k + slots, best, slots < k)
    tl.store(indices + row * k + slots, found, slots < k)


@triton.jit
@no_type_check
def _row_product(x, weight, bias, latents, wanted, d_in, SUM: tl.constexpr, BLOCK_IN: tl.constexpr):
    """Return the pre-activations of one row at some latents; -inf where not wanted."""
    rows = weight + latents.to(tl.int64)[:, None] * d_in
    products = tl.zeros([latents.shape[0], BLOCK_IN], SUM)
    for start in range(0, d_in, BLOCK_IN):
        inner = start + tl.arange(0, BLOCK_IN)
        left = tl.load(x + inner, inner < d_in, 0.0).to(SUM)
        right = tl.load(rows + inner[None, :], wanted[:, None] & (inner < d_in)[None, :], 0.0).to(SUM)
        products += left[None, :] * right
    pre = tl.sum(products, 1) + tl.load(bias + latents, wanted, 0.0).to(SUM)
    pre = tl.where(pre == pre, pre, float("inf"))
    return tl.where(wanted, pre, float("-inf"))


@triton.jit
@no_type_check
def _distance(pre):
    """Distance from zero; what is left out, marked by -inf, stays so."""
    return tl.where(pre == float("-inf"), pre, tl.abs(pre))
