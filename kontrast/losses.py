"""Losses as pure functions of embeddings: no state, no processes, no configuration.

Every similarity is a cosine: embeddings may have any length and are normalised here, in float32 also under autocast
(in float64 if they come so). No loss holds the matrix of all similarities: a large one is made block by block, and
again on the way back (only a gradient of that gradient needs the whole of it).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITIES = 2**22
"""The most that are made in one product, 16 MiB of float32, of which autograd holds about four copies."""
Normalization = Literal["pairs", "rows"]
Duplicates = Literal["ignore", "mask", "multi_positive"]
Reduction = Literal["mean", "sum"]


def info_nce(
    query: Tensor, key: Tensor, positive: Tensor, *, temperature: float | Tensor, exclude: Tensor | None = None
) -> Tensor:
    """Cross-entropy of picking each query's positive among all keys (van den Oord et al., 2018, equation 4).

    Args:
        query: `(n, d)`, any length; normalised here.
        key: `(m, d)`.
        positive: `(n,)` int64, for each query the row of `key` that matches it.
        temperature: Divides the cosine similarities; a tensor `()` may learn.
        exclude: `(n,)` int64, for each query one row of `key` that is no negative of it: the query itself.

    Returns:
        Scalar, the mean over queries. Memory is O((n + m) d), not O(n m).

    Raises:
        ValueError: `query` and `key` differ in width, or `positive` or `exclude` do not name one row of `key` for each
            query.
    """
    _check_width(query, key)
    _check_rows("positive", positive, query, key)
    if exclude is not None:
        _check_rows("exclude", exclude, query, key)
    query, key = _unit(query, key)
    left_out = positive[:, None] if exclude is None else torch.stack([positive, exclude], dim=1)
    return _picking(query / temperature, key[positive], key, left_out)


def nt_xent(a: Tensor, b: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Normalised temperature-scaled cross-entropy: each view finds its partner among 2n - 1 views (SimCLR, equation 1).

    Args:
        a: `(n, d)`, one view of each image.
        b: `(n, d)`, the other view, in the same order.
        temperature: Divides the cosine similarities; a tensor `()` may learn.

    Returns:
        Scalar, the mean over the 2n views; log(2n - 1) for embeddings that say nothing. Memory is O(n d), not O(n^2).

    Raises:
        ValueError: The two views differ in shape.
    """
    _check_pairs(a, b)
    views = torch.cat(_unit(a, b))
    rows = torch.arange(len(views), device=views.device)
    left_out = torch.stack([rows, rows.roll(len(a))], dim=1)
    return _picking(views / temperature, views.roll(len(a), dims=0), views, left_out)


def nt_xent_l2(a: Tensor, b: Tensor, *, temperature: float | Tensor) -> Tensor:
    """NT-Xent whose logits are minus squared distances of unit vectors, -||z - z'||^2 / temperature.

    The discriminative term of EBCLR (Kim & Ye, *Energy-Based Contrastive Learning of Visual Representations*, NeurIPS
    2022). Since -||z - z'||^2 is 2 cos - 2, and the 2 is common to all logits, it is `nt_xent` at half the temperature.

    Args:
        a: `(n, d)`, one view of each image.
        b: `(n, d)`, the other view, in the same order.
        temperature: Divides the squared distances.

    Returns:
        Scalar, the mean over the 2n views, each with 2n - 2 negatives.

    Raises:
        ValueError: The two views differ in shape.
    """
    return nt_xent(a, b, temperature=temperature / 2)


def marginal_score(embedding: Tensor, key: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Unnormalised log-density of images, minus their energy: logsumexp over keys of -||z - z'||^2 / temperature.

    EBCLR's marginal of the joint density of two views, whose second view is one of the keys (Kim & Ye, NeurIPS 2022).

    Args:
        embedding: `(n, d)`, any length; normalised here.
        key: `(m, d)`, likewise; in training the second views of the batch.
        temperature: Divides the squared distances.

    Returns:
        `(n,)` in log(m) - 4 / temperature..log(m). Memory is O((n + m) d), not O(n m).

    Raises:
        ValueError: Embeddings and keys differ in width.
    """
    _check_width(embedding, key)
    embedding, key = _unit(embedding, key)
    none = torch.empty(len(embedding), 0, dtype=torch.int64, device=embedding.device)
    return _logsumexp(embedding * (2 / temperature), key, none) - 2 / temperature


def ebclr_generative(
    data: Tensor,
    sample: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor,
    norm_weight: float,
    norm_reduction: Reduction = "mean",
) -> Tensor:
    """Contrastive divergence: the score of data should rise and that of the model's own samples fall; and a penalty.

    The generative term of EBCLR (Kim & Ye, NeurIPS 2022): mean s(samples) - mean s(data), with `marginal_score` for s,
    and the squared lengths of the embeddings of both, which nothing else bounds.

    Args:
        data: `(n, d)`, embeddings of the first views, not normalised.
        sample: `(m, d)`, of the samples, likewise.
        key: `(k, d)`, of the second views; they get a gradient, too.
        temperature: Divides the squared distances.
        norm_weight: Of the penalty.
        norm_reduction: `"sum"` over images as the authors released it, so that it grows with the batch; `"mean"`, so
            that it does not. A weight for "mean" is n times that for "sum": 0.128 at n = 128 for the released 0.001.

    Returns:
        Scalar.

    Raises:
        ValueError: The embeddings differ in width.
    """
    both = [marginal_score(one, key, temperature=temperature) for one in (data, sample)]
    lengths = [one.to(both[0].dtype).square().sum(1) for one in (data, sample)]
    first, second = (one.mean() if norm_reduction == "mean" else one.sum() for one in lengths)
    return both[1].mean() - both[0].mean() + norm_weight * (first + second)


def queue_info_nce(query: Tensor, key: Tensor, queue: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Each query against its own key and a queue of old keys; other keys of the batch play no part (MoCo, equation 1).

    Args:
        query: `(n, d)`.
        key: `(n, d)`, the positive of each query.
        queue: `(m, d)`, negatives of every query. Its rows have length 1 already: it is large, so it is never copied,
            and must stay as it is until the backward pass is over.
        temperature: Divides the cosine similarities; a tensor `()` may learn.

    Returns:
        Scalar, the mean over queries. Memory is O(n d) beside the queue, not O(n m).

    Raises:
        ValueError: Shapes of query and key differ, or the queue has another width.
    """
    _check_pairs(query, key)
    _check_width(query, queue)
    query, key = _unit(query, key)
    none = torch.empty(len(query), 0, dtype=torch.int64, device=query.device)
    return _picking(query / temperature, key, queue.to(query.dtype), none)


def clip(
    image: Tensor,
    text: Tensor,
    *,
    temperature: float | Tensor,
    columns: tuple[Tensor, Tensor] | None = None,
    offset: int = 0,
    duplicates: Duplicates = "ignore",
    text_id: Tensor | None = None,
) -> Tensor:
    """Each image picks its text among all texts and each text its image among all images; the mean of both.

    Source: Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, ICML 2021; for
    several positives Yang et al., *Unified Contrastive Learning in Image-Text-Label Space*, CVPR 2022.

    Args:
        image: `(n, d)`, embeddings of images.
        text: `(n, d)`, of their texts, in the same order.
        temperature: Divides the cosine similarities; a tensor `()` may learn.
        columns: All images and all texts, `(m, d)` each, of which `image` and `text` are a block of rows: the mean over
            equal blocks is the loss of the whole. Without them, the rows are all there is.
        offset: Row of `columns` at which the block begins.
        duplicates: What pairs with equal texts are to each other: `"ignore"`, negatives like all others; `"mask"`,
            nothing; `"multi_positive"`, positives, among which the target is spread evenly.
        text_id: `(m,)` int64, the same for equal texts and for no others; only `"ignore"` does without.

    Returns:
        Scalar, the mean over the n pairs; log(m) for embeddings that say nothing. Memory is O(m d), not O(n m), and
        with `"mask"` O(n g) besides, where the most frequent text occurs g times.

    Raises:
        ValueError: Images and texts differ in shape, the columns are no such matrices or have no such block, or
            `text_id` is missing or of another length.
    """
    image, text, all_image, all_text = _block_of_pairs(image, text, columns)
    own, directions = _own_rows(image, all_image, offset), ((image, all_text), (text, all_image))
    if duplicates == "multi_positive":
        text_id = _checked_id(text_id, all_image)
        to_text, to_image = (_sharing(query / temperature, key, text_id, own) for query, key in directions)
    else:
        rows = torch.arange(len(all_image), device=image.device)[own, None]
        left_out = rows if duplicates == "ignore" else _rows_of_equals(_checked_id(text_id, all_image), own)
        to_text, to_image = (_picking(query / temperature, key[own], key, left_out) for query, key in directions)
    return (to_text + to_image) / 2


def cyclic_in_modal(
    image: Tensor,
    text: Tensor,
    *,
    normalization: Normalization = "pairs",
    columns: tuple[Tensor, Tensor] | None = None,
    offset: int = 0,
    text_id: Tensor | None = None,
) -> Tensor:
    """Two images should be as similar as their two texts: the sum over j, k of (<I_j, I_k> - <T_j, T_k>)^2.

    Source: Goel et al., *CyCLIP: Cyclic Contrastive Language-Image Pretraining*, NeurIPS 2022.

    Args:
        image: `(n, d)`, embeddings of images.
        text: `(n, d)`, of their texts, in the same order.
        normalization: What divides the sum: `"rows"`, n, as the authors released it, so that it grows with the batch;
            `"pairs"`, n (n - 1), so that it does not. A weight for "pairs" is n - 1 times that for "rows".
        columns: All images and all texts, `(m, d)` each, of which `image` and `text` are a block of rows: k runs over
            these, and m - 1 stands for n - 1. The mean over equal blocks is the loss of the whole.
        offset: Row of `columns` at which the block begins; only `text_id` needs it.
        text_id: `(m,)` int64, the same for equal texts and for no others: such j and k are then left out of the sum,
            which would make their images one, and of the n (n - 1). Without it, none are.

    Returns:
        Scalar; 0 for a single pair. The temperature plays no part. Memory is O(m d), and with `text_id` O(m g) besides,
        where the most frequent text occurs g times.

    Raises:
        ValueError: Images and texts differ in shape, or the columns do or have no such block, or `text_id` is of
            another length.
    """
    image, text, all_image, all_text = _block_of_pairs(image, text, columns)
    total, kept = _cyclic_sum(image, text, all_image, all_text, sign=1), len(all_image) * (len(all_image) - 1)
    if text_id is not None:
        own = _own_rows(image, all_image, offset)
        among_equals, num_equals = _in_modal_among_equals(all_image, all_text, _checked_id(text_id, all_image), own)
        total, kept = (total - among_equals).clamp(min=0), kept - num_equals
    return _normalized(total, normalization, len(image), kept * len(image) / len(all_image))


def cyclic_cross_modal(
    image: Tensor,
    text: Tensor,
    *,
    normalization: Normalization = "pairs",
    columns: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """An image should fit another's text as that one's image fits its own: the sum of (<I_j, T_k> - <I_k, T_j>)^2.

    Source: Goel et al., *CyCLIP: Cyclic Contrastive Language-Image Pretraining*, NeurIPS 2022.

    Args:
        image: `(n, d)`, embeddings of images.
        text: `(n, d)`, of their texts, in the same order.
        normalization: As in `cyclic_in_modal`.
        columns: As in `cyclic_in_modal`.

    Returns:
        Scalar; 0 for a single pair. The temperature plays no part. Memory is O(m d).

    Raises:
        ValueError: Images and texts differ in shape, or the columns do.
    """
    image, text, all_image, all_text = _block_of_pairs(image, text, columns)
    total, kept = _cyclic_sum(image, text, all_image, all_text, sign=-1), len(image) * (len(all_image) - 1)
    return _normalized(total, normalization, len(image), kept)


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Minus the mean cosine of prediction and target; no gradient flows into the target (SimSiam, equations 1 and 3).

    Args:
        prediction: `(n, d)`.
        target: `(n, d)`.

    Returns:
        Scalar in -1..1; -1 is also what collapsed embeddings reach.

    Raises:
        ValueError: Shapes differ.
    """
    _check_pairs(prediction, target)
    prediction, target = _unit(prediction, target.detach())
    return -(prediction * target).sum(1).mean()


def classification(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy over the images that have a label; per-class binary cross-entropy where labels are multi-label.

    Args:
        logits: `(n, classes)`.
        label: `(n,)` int64 with -1 for none, or `(n, classes)` float in {0, 1, NaN}, NaN for unknown.

    Returns:
        Scalar, the mean over known labels; 0 (with zero gradient) when none is known.
    """
    each, known = _surprises(logits, label)
    return (each * known).sum() / known.sum().clamp(min=1)


def focal(logits: Tensor, label: Tensor, *, gamma: float = 2.0, detach_weight: bool = False) -> Tensor:
    """Focal loss: cross-entropy in which an image weighs less the surer its class is, (1 - p)^gamma.

    Source: Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017, equation 4, without the weight of classes.

    Args:
        logits: `(n, classes)`.
        label: As in `classification`; multi-label data have one term a class.
        gamma: 0 or more; 0 is cross-entropy.
        detach_weight: Whether the weight is a constant, without gradient, as in the code of Lu et al., 2021.

    Returns:
        Scalar, the mean over known labels; 0 (with zero gradient) when none is known.
    """
    each, known = _surprises(logits, label)
    weight = (-torch.expm1(-each)).clamp(min=torch.finfo(each.dtype).tiny) ** gamma  # 0 has no slope for gamma < 1
    weight = weight.detach() if detach_weight else weight
    return (weight * each * known).sum() / known.sum().clamp(min=1)


def _surprises(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """-log of the probability of each label, any number where it is not known, and whether it is."""
    logits = logits.float()
    if label.ndim == 1:
        return F.cross_entropy(logits, label, ignore_index=-1, reduction="none"), label >= 0
    known = ~label.isnan()
    return F.binary_cross_entropy_with_logits(logits, label.nan_to_num().float(), reduction="none"), known


def _picking(query: Tensor, positive: Tensor, key: Tensor, left_out: Tensor) -> Tensor:
    """Mean of -log of the positive's share, e^own / (e^own + sum of e^negative), where `left_out` are no negatives.

    The positive is held apart, so that the loss of embeddings that fit well keeps its digits: own similarity and
    log-sum-exp of all would be nearly equal numbers, up to a hundred times larger than their difference.
    """
    own = (query * positive).sum(1)
    return -F.logsigmoid(own - _logsumexp(query, key, left_out)).mean()


def _sharing(query: Tensor, key: Tensor, text_id: Tensor, own: slice) -> Tensor:
    """Mean of -log of the positives' shares, averaged over all keys that have a query's text."""
    inverse, counts = _numbered(text_id)
    mean = key.new_zeros(len(counts), key.shape[1]).index_add(0, inverse, key) / counts[:, None]
    none = torch.empty(len(query), 0, dtype=torch.int64, device=query.device)
    each: Tensor = _logsumexp(query, key, none) - (query * mean[inverse[own]]).sum(1)
    return each.mean()


def _rows_of_equals(text_id: Tensor, own: slice) -> Tensor:
    """For each of one's own rows all rows with its text, itself included, `(n, g)`; some twice to fill the width."""
    inverse, counts = _numbered(text_id)
    first, mine = counts.cumsum(0) - counts, inverse[own]
    step = torch.arange(int(counts.max()), device=text_id.device).minimum(counts[mine, None] - 1)
    return inverse.argsort(stable=True)[first[mine, None] + step]


def _numbered(text_id: Tensor) -> tuple[Tensor, Tensor]:
    """For each row the number of its text, from 0, and how often each text occurs."""
    _, inverse, counts = text_id.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    return inverse, counts


def _logsumexp(query: Tensor, key: Tensor, left_out: Tensor) -> Tensor:
    """For each query `(n, d)` the log-sum-exp of its products with keys `(m, d)` but those of `left_out` `(n, any)`."""
    if len(query) * len(key) <= SIMILARITIES:
        return _negatives(query, key, left_out).logsumexp(1)
    result: Tensor = _BlockwiseLogSumExp.apply(query, key, left_out)  # type: ignore[no-untyped-call]
    return result


class _BlockwiseLogSumExp(torch.autograd.Function):
    """The same, made a block of rows at a time, and again for the gradient."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, query: Tensor, key: Tensor, left_out: Tensor) -> Tensor:
        result = torch.cat([_logsumexp_(block) for _, block in _blocks(query, key, left_out)])
        ctx.save_for_backward(query, key, left_out, result)
        return result

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        query, key, left_out, result = ctx.saved_tensors  # type: ignore[attr-defined]
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted, so autograd must see how it is made
            weight = _negatives(query, key, left_out).softmax(1) * grad[0][:, None]
            return _products(weight, key.T), _products(weight.T, query.T), None
        to_query, to_key = (
            torch.zeros_like(value) if needed else None
            for value, needed in zip((query, key), ctx.needs_input_grad, strict=False)  # type: ignore[attr-defined]
        )
        for rows, block in _blocks(query, key, left_out):
            weight = block.sub_(result[rows, None]).exp_().mul_(grad[0][rows, None])
            if to_query is not None:
                to_query[rows].addmm_(weight, key)
            if to_key is not None:
                to_key.addmm_(weight.T, query[rows])
        return to_query, to_key, None


def _blocks(query: Tensor, key: Tensor, left_out: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The rows of `_negatives`, a block at a time, each in the memory of the last.

    A block is alone, so it may be as large as four copies; products of fewer rows are slower.
    """
    step = min(len(query), max(1, 4 * SIMILARITIES // len(key)))
    memory = query.new_empty(step, len(key))
    for i in range(0, len(query), step):
        rows = slice(i, i + step)
        block = torch.mm(query[rows], key.T, out=memory[: len(query[rows])])
        yield rows, _leave_out(block, left_out[rows])


def _logsumexp_(block: Tensor) -> Tensor:
    """Row-wise log-sum-exp, `(n, m)` to `(n,)`, that overwrites its argument: torch's own makes two copies."""
    highest = block.amax(1, keepdim=True)
    return block.sub_(highest).exp_().sum(1).log_().add_(highest[:, 0])


def _negatives(query: Tensor, key: Tensor, left_out: Tensor) -> Tensor:
    """Inner products `(n, m)` of queries and keys, those left out marked."""
    return _leave_out(_products(query, key), left_out)


def _leave_out(products: Tensor, left_out: Tensor) -> Tensor:
    """In place, the least number there is where a key is left out: minus infinity would give 0/0."""
    return products.scatter_(1, left_out, torch.finfo(products.dtype).min)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of rows `(..., n, m)`, in full precision: a temperature of 0.05 needs more than 8 bits."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.mT


def _own_rows(rows: Tensor, columns: Tensor, offset: int) -> slice:
    """Where the rows are among the columns."""
    if not 0 <= offset <= len(columns) - len(rows):
        raise ValueError(
            f"the rows are a block of the columns; got {len(rows)} rows from offset {offset} on, "
            f"and {len(columns)} columns"
        )
    return slice(offset, offset + len(rows))


def _normalized(total: Tensor, normalization: Normalization, rows: int, pairs: float) -> Tensor:
    """A cyclic sum over its rows, or over its ordered pairs of two different ones."""
    return total / (rows if normalization == "rows" else pairs or 1)


def _cyclic_sum(image: Tensor, text: Tensor, all_image: Tensor, all_text: Tensor, sign: int) -> Tensor:
    """Of sums s = I + T and differences e = I - T, so that nothing large cancels where I is near T.

    With x = <e_j, s_k> and y = <s_j, e_k>, by algebra <I_j, I_k> - <T_j, T_k> = (x + y) / 2 and
    <I_j, T_k> - <I_k, T_j> = (x - y) / 2. Sums of x^2, y^2 and x y over all pairs follow from d x d matrices.
    """
    s, e, all_s, all_e = image + text, image - text, all_image + all_text, all_image - all_text
    if len(all_s) > s.shape[1]:
        squares = (_gram(e, e) * _gram(all_s, all_s) + _gram(s, s) * _gram(all_e, all_e)).sum()
        return (squares + 2 * sign * (_gram(e, s) * _gram(all_s, all_e)).sum()) / 4
    return (_products(e, all_s) + sign * _products(s, all_e)).square().sum() / 4


def _in_modal_among_equals(image: Tensor, text: Tensor, text_id: Tensor, own: slice) -> tuple[Tensor, int]:
    """The sum of the in-modal term over own rows and other rows of the same text; and the number of such pairs in all.

    Texts that occur equally often are multiplied together.
    """
    inverse, counts = _numbered(text_id)
    order, total = inverse.argsort(stable=True), image.new_zeros(())
    is_own = torch.zeros(len(image), dtype=torch.bool, device=image.device)
    is_own[own] = True
    for count in sorted(set(counts[counts > 1].tolist())):
        rows = order[counts[inverse[order]] == count].view(-1, count)
        i, t = image[rows], text[rows]
        total = total + (_products(i, i) - _products(t, t)).square()[is_own[rows]].sum()
    return total, int((counts * (counts - 1)).sum())


def _gram(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of columns: `(n, d)` twice to `(d, d)`."""
    return _products(a.T, b.T)


def _unit(*embeddings: Tensor) -> list[Tensor]:
    """Rows of length 1, all in float64 if any is, else in float32."""
    dtype = reduce(torch.promote_types, (e.dtype for e in embeddings), torch.float32)
    return [F.normalize(e.to(dtype), dim=1) for e in embeddings]


def _block_of_pairs(
    image: Tensor, text: Tensor, columns: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, texts, all images, all texts, normalised; without columns the rows are all."""
    _check_pairs(image, text)
    if columns is None:
        image, text = _unit(image, text)
        return image, text, image, text
    _check_pairs(*columns)
    _check_width(image, columns[0])
    image, text, all_image, all_text = _unit(image, text, *columns)
    return image, text, all_image, all_text


def _check_width(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings are (n, d) with one width d; got {tuple(a.shape)} and {tuple(b.shape)}")


def _check_pairs(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(
            f"the two views of each image are compared, so both have one shape (n, d); "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )


def _checked_id(text_id: Tensor | None, all_image: Tensor) -> Tensor:
    if text_id is None or text_id.shape != all_image.shape[:1]:
        seen = "none" if text_id is None else f"shape {tuple(text_id.shape)}"
        raise ValueError(f"equal texts are known by one text_id for each of the {len(all_image)} columns; got {seen}")
    return text_id


def _check_rows(name: str, rows: Tensor, query: Tensor, key: Tensor) -> None:
    if rows.shape != query.shape[:1] or not bool(((rows >= 0) & (rows < len(key))).all()):
        raise ValueError(
            f"{name} names one of the {len(key)} keys for each of the {len(query)} queries; "
            f"got shape {tuple(rows.shape)} and values {rows.flatten()[:3].tolist()} ..."
        )
