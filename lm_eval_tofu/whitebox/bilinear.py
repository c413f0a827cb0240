"""The probe itself: a bilinear score of hidden states and candidates, fitted by softmax regression.

h is one hidden state a row, e one vector a candidate. The score of candidate c is (W h) . e(c). The training rows' mean
is subtracted from h first, so that the candidates alone cannot determine the score.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]

L2_GRID = (1e-2, 1e-3, 1e-4, 1e-5)
"""Weights of the squared norm of W to choose from, from the strongest on."""
WIDEST = 256
"""Hidden states and candidates wider than this are projected on as many principal components: W is then at most 256 x
256. An 8B model's full W has 16.8 million entries, for a few thousand rows."""
FOLDS = 4


class Scaling(NamedTuple):
    """A map of vectors of width d to directions in k dimensions, fitted on training rows."""

    mean: Tensor  # (d,)
    matrix: Tensor  # (d, k)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Map the last dimension, to length 1: a text that is far from all others must not win or lose by that."""
        return normalize((vectors - self.mean) @ self.matrix, dim=-1)


def fit_scaling(vectors: Tensor, widest: int = WIDEST, seed: int = 0) -> Scaling:
    """Subtract the mean, scale every dimension to standard deviation 1, keep the leading principal components.

    Args:
        vectors: Shape (n, d), float32.
        widest: Components to keep at most.
        seed: Of the randomised decomposition (Halko et al. 2011, arXiv 0909.4061).
    """
    mean = vectors.mean(dim=0)
    deviation = vectors.std(dim=0, correction=0)
    # A constant dimension carries no information, and dividing by its deviation would amplify rounding errors.
    scale = torch.where(deviation > 1e-6 * deviation.max().clamp_min(1e-30), 1 / deviation, torch.zeros_like(deviation))
    if vectors.shape[1] <= widest:
        return Scaling(mean, torch.diag(scale))
    with torch.random.fork_rng(devices=[vectors.device] if vectors.is_cuda else []):
        torch.manual_seed(seed)
        components = torch.pca_lowrank((vectors - mean) * scale, q=min(widest, len(vectors)), center=False)[2]
    return Scaling(mean, scale[:, None] * components)


def fit(
    hidden: Tensor, candidates: Tensor, labels: Tensor, l2: float, start: Tensor | None = None, steps: int = 60
) -> Tensor:
    """W that minimises the mean cross-entropy of the right candidate plus l2 times the squared norm of W.

    Args:
        hidden: Shape (n, k), scaled.
        candidates: Shape (n, c, m), scaled.
        labels: Shape (n,), the right candidate of each row.
        l2: Above 0.
        start: Where to start from; the problem is convex, so it only saves time.
        steps: Iterations of L-BFGS at most.

    Returns:
        Shape (k, m).
    """
    weights = torch.zeros(hidden.shape[1], candidates.shape[2], device=hidden.device) if start is None else start
    weights = weights.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(scores(hidden, candidates, weights), labels) + l2 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def scores(hidden: Tensor, candidates: Tensor, weights: Tensor) -> Tensor:
    """(W h) . e(c) for each candidate, shape (n, c)."""
    return torch.einsum("nm,ncm->nc", hidden @ weights, candidates)


def top1(scored: Tensor) -> Floats:
    """Whether candidate 0, the true one, has the highest score: shape (n,).

    A tie of t candidates counts 1/t, as guessing among them would on average.
    """
    highest = scored == scored.max(dim=1, keepdim=True).values
    shares = highest[:, 0].float() / highest.sum(dim=1).clamp_min(1)
    return np.asarray(shares.cpu().numpy(), dtype=float)


class Training(NamedTuple):
    """What a probe is fitted on; n rows, m different candidates."""

    hidden: Floats  # (n, d)
    vectors: Floats  # (m, w): e of each candidate
    chosen: Indices  # (n, c): candidates of each row, the true one first, as indices of `vectors`
    authors: Indices  # (n,)


class Testing(NamedTuple):
    """What a probe is tested on; n rows."""

    hidden: Floats  # (n, d)
    candidates: Floats  # (n, 6, w): e of each row's candidates, the true one first
    authors: Indices  # (n,)


class Outcome(NamedTuple):
    """The test of a fitted probe; all values are NaN where a hidden state is not finite."""

    correct: Floats  # (n,) in [0, 1], see `top1`
    shuffled: Floats  # the same after training with labels at random
    l2: float  # what cross-validation chose


def probe(
    training: Training, testing: Testing, *, seed: int = 0, device: str = "cpu", grid: Sequence[float] = L2_GRID
) -> Outcome:
    """Fit on the training authors, choose L2 by cross-validation over them, and test on other authors.

    Args:
        training: Rows to learn from.
        testing: Rows to be tested on.
        seed: Of the folds, of the random labels, and of the decomposition of wide vectors.
        device: Where to compute.
        grid: Values of L2.

    Raises:
        ValueError: As `check_authors`.
    """
    check_authors(training.authors, testing.authors)
    arrays = (training.hidden, training.vectors, testing.hidden, testing.candidates)
    if not all(np.isfinite(array).all() for array in arrays):
        nothing = np.full(len(testing.hidden), math.nan)
        return Outcome(nothing, nothing, math.nan)
    hidden, vectors, held_hidden, held = (
        torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32, device=device) for array in arrays
    )
    chosen = torch.as_tensor(training.chosen, device=device)
    l2 = grid[0]
    if len(grid) > 1:
        l2 = _choose_l2(hidden, vectors, chosen, folds(training.authors, seed), grid, seed)
    scale_hidden = fit_scaling(hidden, seed=seed)
    scale_vectors = fit_scaling(vectors[chosen[:, 0].unique()], seed=seed)
    rows, texts = scale_hidden(hidden), scale_vectors(vectors)[chosen]

    def tested(labels: Indices) -> Floats:
        weights = fit(rows, texts, torch.as_tensor(labels, device=device), l2)
        return top1(scores(scale_hidden(held_hidden), scale_vectors(held), weights))

    random = np.random.default_rng([seed, 1]).integers(chosen.shape[1], size=len(hidden))
    return Outcome(tested(np.zeros_like(random)), tested(random), l2)


def check_authors(training: Indices, testing: Indices) -> None:
    """Refuse authors on both sides, and fewer than two training authors, with a ValueError."""
    both = np.intersect1d(training, testing)
    if len(both):
        raise ValueError(f"author {both[0]} is among the training authors and among the tested ones")
    if len(np.unique(training)) < 2:
        raise ValueError("cross-validation over authors needs at least two of them to learn from")


def folds(authors: Indices, seed: int) -> list[npt.NDArray[np.bool_]]:
    """Masks of the rows that are held out, fold by fold: all rows of an author are in the same one."""
    names = np.random.default_rng(seed).permutation(np.unique(authors))
    return [np.isin(authors, part) for part in np.array_split(names, min(FOLDS, len(names)))]


def _choose_l2(
    hidden: Tensor,
    vectors: Tensor,
    chosen: Tensor,
    held_out: Sequence[npt.NDArray[np.bool_]],
    grid: Sequence[float],
    seed: int,
) -> float:
    """The weight with the lowest cross-entropy on held-out authors."""
    losses = torch.zeros(len(grid), dtype=torch.float64)
    gold = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    for mask in held_out:
        out = torch.as_tensor(mask, device=hidden.device)
        rows = fit_scaling(hidden[~out], seed=seed)(hidden)
        texts = fit_scaling(vectors[chosen[~out, 0].unique()], seed=seed)(vectors)[chosen]
        weights = None
        for number, l2 in enumerate(grid):  # from the strongest on: each is a good start for the next
            weights = fit(rows[~out], texts[~out], gold[~out], l2, weights)
            scored = scores(rows[out], texts[out], weights)
            losses[number] += cross_entropy(scored, gold[out], reduction="sum").double().cpu()
    return grid[int(losses.argmin())]


def candidates_only(vectors: Floats, chosen: Indices, held: Floats, l2: float = 1e-3) -> Floats:
    """The control without a model: one vector w, score w . e(c), fitted and tested on the same rows as the probe.

    Args:
        vectors: e of each candidate, shape (m, w).
        chosen: Candidates of each training row, shape (n, c).
        held: e of each tested row's candidates, shape (k, 6, w).
        l2: Weight of the squared norm of w.

    Returns:
        Shape (k,), see `top1`.
    """
    if not (np.isfinite(vectors).all() and np.isfinite(held).all()) or not len(chosen):
        return np.full(len(held), math.nan)
    known, tested = (torch.as_tensor(array, dtype=torch.float32) for array in (vectors, held))
    scale = fit_scaling(known[np.unique(chosen)])
    texts = scale(known)[torch.as_tensor(chosen)]
    weights = fit(torch.ones(len(texts), 1), texts, torch.zeros(len(texts), dtype=torch.long), l2)
    return top1(scores(torch.ones(len(tested), 1), scale(tested), weights))
