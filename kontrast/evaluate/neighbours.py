"""The nearest features by cosine: exactly those of a float32 search of everything, sooner where bf16 is faster.

The search is around the mean of the bank. Features are often nearly parallel; around their mean they are not, and there
a rounded product errs in proportion to their spread and not to their length. On processors with bf16 instructions every
product is first made from rounded values. How far that can be off is bounded by the norms of what was rounded away
(Cauchy-Schwarz), so most keys are certainly not among the nearest; the few others are multiplied again in float32. A
query with too many of those is searched in float32 as a whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kontrast.distributed import native_bf16

BLOCK = 2**26
"""Products held at a time: 128 MB of bf16, 256 MB of float32."""
GROUP = 64
"""Keys of which only the largest product is looked at, until the best groups are known."""
CANDIDATES = 6
"""Keys that screening lets through at most, for each neighbour wanted."""
PARTS = 3
"""Values of bf16 that add up to one of float32."""
PAIRS = 2**10
"""Candidates multiplied at a time: 2 MB at a width of 512."""
SAMPLE = 16
"""One key in so many tells beforehand about how near the nearest are."""

Found = tuple[Tensor, Tensor]
"""Values, largest first, and rows of the bank; both `(m, k)`."""


@torch.no_grad()
def nearest(bank: Tensor, queries: Tensor, k: int) -> Found:
    """Cosines and rows of each query's nearest features.

    Args:
        bank: `(n, d)` float32, any length. A zero vector is as far from everything as a right angle.
        queries: `(m, d)` float32, on the same device.
        k: In 1..n.

    Returns:
        Cosines `(m, k)`, largest first, and the rows of `bank` that have them, `(m, k)`: no other row has a larger
        cosine, up to the rounding of float32. Memory is bounded: queries come in blocks.
    """
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    centre = bank.mean(0)
    plain = _Search(bank - centre, centre, k)
    search = _Screened(plain, len(bank)) if _screening_pays(bank, k) else plain
    values, rows = search(queries - centre)
    return (values + (queries @ centre)[:, None]).clamp(-1, 1), rows


def _screening_pays(bank: Tensor, k: int) -> bool:
    """Whether there are many keys, and a processor that multiplies bf16 faster than float32.

    GPUs are fast enough in float32, and may round to bf16 in the middle of a sum, which no bound here covers.
    """
    return bank.device.type == "cpu" and len(bank) >= 2 * GROUP * CANDIDATES * k and bool(native_bf16())


class _Search:
    """All products in float32."""

    def __init__(self, keys: Tensor, centre: Tensor, k: int) -> None:
        missing = -len(keys) % GROUP
        self.k, self.keys = k, F.pad(keys, (0, 0, 0, missing))
        self.bias = F.pad(keys @ centre, (0, missing), value=-torch.inf)
        """The cosines of a query `q + centre` are `keys @ q + bias`, and a constant."""

    def __call__(self, queries: Tensor) -> Found:
        """The largest of `keys @ q + bias` for queries `q` around the centre."""
        blocks, products = _blocks(queries, self.keys)
        found = [
            _largest(torch.addmm(self.bias, block, self.keys.T, out=products[: len(block)]), self.k) for block in blocks
        ]
        values, rows = (torch.cat(parts) for parts in zip(*found, strict=True))
        return values, rows


class _Screened:
    """All products in bf16, then those of the candidates in float32."""

    def __init__(self, search: _Search, num_keys: int) -> None:
        self.search, self.k = search, search.k
        rounded = search.keys.bfloat16()
        self.length = search.keys.norm(dim=1).max()
        self.lost = (search.keys - rounded.float()).norm(dim=1).max()
        self.largest_bias = search.bias[:num_keys].abs().max()
        self.table = torch.cat([rounded, *_parts(search.bias), torch.ones_like(rounded[:, :1])], dim=1)
        self.sample = self.table[::SAMPLE, :-1]

    def __call__(self, queries: Tensor) -> Found:
        """As the search in float32, which does again what screening leaves open."""
        blocks, products = _blocks(queries, self.table)
        found = [self._screen(block, products[: len(block)]) for block in blocks]
        values, rows, certain = (torch.cat(parts) for parts in zip(*found, strict=True))
        again = (~certain).nonzero()[:, 0]
        if len(again):
            values[again], rows[again] = self.search(queries[again])
        return values, rows

    def _screen(self, queries: Tensor, products: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values, rows, and whether the k-th value exceeds whatever was passed over, `(m,)`."""
        rounded = queries.bfloat16()
        columns = F.pad(rounded, (0, PARTS), value=1)
        floor = self._floor(columns)
        torch.mm(torch.cat([columns, -floor], dim=1), self.table.T, out=products)
        above, rows = _largest(products, CANDIDATES * self.k)
        error = self._error(queries, rounded, floor)[:, None] + above.abs() * 2**-8
        possible = above + error >= (above - error)[:, self.k - 1 : self.k]
        values, order = self._products(queries, rows, possible).topk(self.k, dim=1)
        passed_over = floor[:, 0].float() + above[:, -1].clamp(min=0) + error[:, -1]
        return values, rows.gather(1, order), values[:, -1] >= passed_over

    def _floor(self, columns: Tensor) -> Tensor:
        """`(m, 1)` bf16, about the value of the last candidate. Near it bf16 rounds little once it is subtracted."""
        rank = 1 + CANDIDATES * self.k // SAMPLE
        return (columns @ self.sample.T).float().topk(rank, dim=1).values[:, -1:].bfloat16()

    def _error(self, queries: Tensor, rounded: Tensor, floor: Tensor) -> Tensor:
        """`(m,)`, how far a bf16 product can be off before it is itself rounded, and a float32 one with it."""
        kept, lost = rounded.float().norm(dim=1), (queries - rounded.float()).norm(dim=1)
        summed = (kept + lost) * (self.length + self.lost) + self.largest_bias + floor[:, 0].float().abs()
        sums = (queries.shape[1] + 8) * 2**-23 * summed
        error: Tensor = 1.001 * (lost * self.length + kept * self.lost + sums)
        return error

    def _products(self, queries: Tensor, rows: Tensor, possible: Tensor) -> Tensor:
        """Products in float32 where they are `possible`, else minus infinity: `(m, candidates)`."""
        query = possible.nonzero()[:, 0]
        found = [
            (self.search.keys[row] * queries[index]).sum(1) + self.search.bias[row]
            for row, index in zip(torch.split(rows[possible], PAIRS), torch.split(query, PAIRS), strict=True)
        ]
        return torch.full(rows.shape, -torch.inf).masked_scatter(possible, torch.cat(found))


def _blocks(queries: Tensor, keys: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Queries some at a time, at least one block, and the memory for the products of one: new memory is slow memory."""
    size = min(max(1, BLOCK // len(keys)), len(queries))
    return torch.split(queries, max(1, size)), keys.new_empty(size, len(keys))


def _parts(values: Tensor) -> list[Tensor]:
    """`(n,)` float32 as columns of bf16, of which it is the sum."""
    parts = []
    for _ in range(PARTS):
        parts.append(values.bfloat16()[:, None])
        values = (values - parts[-1][:, 0].float()).nan_to_num(0)
    return parts


def _largest(products: Tensor, k: int) -> Found:
    """The k largest of each row and their columns. They lie in those k groups of columns that have the largest maxima.

    Of bf16, only what is above 0 is found for certain: its bits are compared as integers, five times faster, which puts
    negative values below the positive but among themselves the wrong way round.
    """
    num_groups = products.shape[1] // GROUP
    if num_groups <= 2 * k or products.shape[1] % GROUP:
        found = products.float().topk(k, dim=1)
        return found.values, found.indices
    grouped = products.view(len(products), GROUP, num_groups)
    if products.dtype == torch.bfloat16:
        maxima = grouped.view(torch.int16).amax(1).view(torch.bfloat16).float()
    else:
        maxima = grouped.amax(1)
    groups = maxima.topk(k, dim=1, sorted=False).indices
    members = grouped.gather(2, groups[:, None].expand(-1, GROUP, -1)).flatten(1).float()
    values, at = members.topk(k, dim=1)
    return values, at // k * num_groups + groups.gather(1, at % k)
