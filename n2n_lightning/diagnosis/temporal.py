"""Noise that frames share: with their successors (lag), in single pairs, or because one is a mix of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_FRAMES = 40  # compared with each other at a time
PAIR_CHANCE = 30  # squared standard errors that a lag or a pair must explain
UNSURE_RHO = 0.2


@dataclass(frozen=True)
class Temporal:
    """Correlation of the noise between frames. `lag` holds neighbours, the next but one, ...; empty where frames are
    too few to tell.
    """

    lag: tuple[float, ...]
    error: float  # of one pair of frames
    lag_error: float  # of lag[0]
    pairs: tuple[tuple[int, int, float], ...]  # frames whose noise is shared, and how much, beyond what the lags say


def temporal(residual: np.ndarray, spatial_sum: float, detail: np.ndarray | None) -> Temporal:
    """Measure the correlation between frames.

    spatial_sum: sum of squared correlations over the lags, 1 for white noise; detail (N,): noise variance of each
    frame, up to a constant that all share; None where that is not known. Frames less their mean are correlated by
    -1/(N-1) anyway. So models are fitted to J C J, J = I - 11'/N, by weighted least squares: a variance of each frame
    (of three or four frames one for all, with the differences in `detail`), and lags or single pairs.
    """
    n = min(len(residual), MAX_FRAMES)
    some = residual[:n] - residual[:n].mean(axis=0)
    flat = some.reshape(n, -1)
    moments = (flat @ flat.T).astype(np.float64) / flat.shape[1]
    power = float(np.trace(moments)) / (n - 1)
    error = float(np.sqrt(spatial_sum / flat.shape[1]))
    if n < 3 or power <= 0:
        return Temporal((), error, error, ())
    model = _Model(moments / power, None if detail is None else detail[:n] / power, error)
    lags, left_by_lags, lag_error = model.lags()
    pairs, left_by_pairs = model.pairs()
    if n == 3 and detail is None:  # three frames that may differ in noise, and nothing to tell by how much
        pairs = tuple(p for p in pairs if p[2] > UNSURE_RHO)
    worth = PAIR_CHANCE * model.error**2
    lag_gain = model.left - left_by_lags - worth
    if lag_gain > 0 and (lag_gain >= model.left - left_by_pairs - worth * len(pairs) or (n == 3 and not pairs)):
        return Temporal(lags, error, lag_error, ())
    return Temporal(tuple(0.0 for _ in lags) if pairs else lags, error, lag_error, pairs)


class _Model:
    """Least squares for the moments (N, N) of frames less their mean, power 1."""

    def __init__(self, moments: np.ndarray, detail: np.ndarray | None, error: float) -> None:
        self.n = n = len(moments)
        few = n == 3 or (n == 4 and detail is not None)
        own = (
            2 * np.sqrt(max(2 * float(np.mean(detail)) - 1, 1)) if few and detail is not None else 2.0
        )  # error of `detail`: texture adds to it
        self.error = error * (own if few else 1)
        self.centre = np.eye(n) - 1 / n
        self.upper = np.triu_indices(n)
        sd = np.sqrt(np.diag(moments))
        self.weight = 1 / np.outer(sd, sd)[self.upper]
        self.known = np.diag(detail - detail.mean()) if few and detail is not None else np.zeros((n, n))
        self.target = moments[self.upper] * self.weight - self.column(self.known)
        self.own = [self.column(np.eye(n))] if few else [self.column(np.diag(row)) for row in np.eye(n)]
        self.left, coefficients = self.fit(self.own)
        self.sd = self.deviations(coefficients)

    def deviations(self, coefficients: np.ndarray) -> np.ndarray:
        """Return each frame's sd (N,) from fitted coefficients."""
        variances = coefficients[: self.n] if len(self.own) > 1 else coefficients[0] + np.diag(self.known)
        return np.asarray(np.sqrt(np.maximum(variances, 1e-6)))

    def column(self, matrix: np.ndarray) -> np.ndarray:
        return np.asarray((self.centre @ matrix @ self.centre)[self.upper] * self.weight)

    def fit(self, columns: list[np.ndarray]) -> tuple[float, np.ndarray]:
        """Return the sum of squares left and the coefficients."""
        matrix = np.stack(columns, axis=1)
        coefficients = np.linalg.lstsq(matrix, self.target, rcond=None)[0]
        return float(np.sum((matrix @ coefficients - self.target) ** 2)), coefficients

    def lags(self) -> tuple[tuple[float, ...], float, float]:
        """Return the correlation by lag, the sum of squares left and the standard error: lag 1 alone, or rho, rho^2,
        ..., whichever fits.
        """
        steps = np.abs(np.subtract.outer(np.arange(self.n), np.arange(self.n)))
        scale = np.outer(self.sd, self.sd)
        best: tuple[tuple[float, ...], float] = ((0.0,), np.inf)
        for decay in np.linspace(0, 0.9, 37):
            shape = np.where(steps == 0, 0.0, np.where(steps == 1, 1.0, decay ** np.maximum(steps - 1, 0)))
            left, coefficients = self.fit([*self.own, self.column(shape * scale)])
            sd = self.deviations(coefficients)
            value = float(min(coefficients[-1] * np.mean(self.sd[1:] * self.sd[:-1]) / np.mean(sd[1:] * sd[:-1]), 1.0))
            if (decay == 0 or abs(value - decay) < 0.05 + 0.2 * decay) and left < best[1]:
                best = (tuple(float(value * decay**k) for k in range(min(3, self.n - 1))), left)
        matrix = np.stack([*self.own, self.column(np.where(steps == 1, scale, 0.0))], axis=1)
        spread = float(np.sqrt(max(np.linalg.pinv(matrix.T @ matrix)[-1, -1], 0.0)))
        return best[0], best[1], self.error * spread

    def pairs(self) -> tuple[tuple[tuple[int, int, float], ...], float]:
        """Return pairs of frames that share noise, found one by one, and the sum of squares left."""
        n, columns = self.n, list(self.own)
        chosen: list[tuple[int, int]] = []
        left, coefficients = self.fit(columns)
        candidates = {(i, k): self.column(_pair(n, i, k)) for i in range(n) for k in range(i + 1, n)}
        while len(chosen) < max(1, min(n // 2, n * (n - 1) // 2 - len(self.own) - 1)):
            matrix = np.stack(columns, axis=1)
            rest, projector = self.target - matrix @ coefficients, np.linalg.pinv(matrix)
            best, gain = None, PAIR_CHANCE * self.error**2
            for pair, c in candidates.items():
                free = c - matrix @ (projector @ c)
                power = float(free @ free)
                slope = float(free @ rest) / power if power > 1e-6 and pair not in chosen else 0.0
                if slope > 0 and slope**2 * power > gain:
                    best, gain = pair, slope**2 * power
            if best is None:
                break
            chosen.append(best)
            columns.append(candidates[best])
            left, coefficients = self.fit(columns)
        found = coefficients[len(self.own) :]
        sd = self.deviations(coefficients)
        return tuple(
            (i, k, float(min(c / (sd[i] * sd[k]), 1.0))) for (i, k), c in zip(chosen, found, strict=True)
        ), left


def _pair(n: int, i: int, k: int) -> np.ndarray:
    matrix = np.zeros((n, n))
    matrix[i, k] = matrix[k, i] = 1
    return matrix


def dependent(stack: np.ndarray) -> int | None:
    """Return the frame of (N, C, H, W), N >= 3, that is a mix of others (their mean, say), None if there is none.

    Independent noise keeps every mix of frames apart; the smallest eigenvalue of their covariance is 0 only for
    frames made from each other.
    """
    n = min(len(stack), MAX_FRAMES)
    if n < 3:
        return None
    flat = stack[:n].reshape(n, -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    covariance = (flat @ flat.T).astype(np.float64) / flat.shape[1]
    apart = [covariance[k, k] + covariance[k + 1, k + 1] - 2 * covariance[k, k + 1] for k in range(n - 1)]
    values, vectors = np.linalg.eigh(covariance)
    weights = np.abs(vectors[:, 0])
    return int(np.argmax(weights)) if values[0] < 0.05 * 0.5 * min(apart) and np.sort(weights)[-3] > 0.1 else None
