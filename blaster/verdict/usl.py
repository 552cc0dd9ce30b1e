"""The Universal Scalability Law, fitted to measurements.

X(N) = λN / (1 + σ(N − 1) + κN(N − 1))

N is the concurrency and X the throughput; λ is the throughput of one, σ the contention (the share
that cannot run in parallel) and κ the coherency (the cost of agreement between each pair). With
κ > 0 throughput peaks at N = √((1 − σ)/κ) and falls beyond it: N. J. Gunther, Guerrilla Capacity
Planning, Springer 2007, chapters 5 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROUNDS = 200


class Usl(msgspec.Struct, frozen=True):
    """A fit. Errors are standard errors: the 95 % confidence interval is about two of them wide.

    ``scale`` is λ, in spans per second; ``peak_concurrency`` and ``peak_spans_per_s`` are None
    if the law has no peak. ``r_squared`` is the share of the variance that it explains.
    """

    scale: float
    scale_error: float
    contention: float
    contention_error: float
    coherency: float
    coherency_error: float
    r_squared: float
    peak_concurrency: float | None
    peak_spans_per_s: float | None
    points: int


def throughput(n: Floats, scale: float, contention: float, coherency: float) -> Floats:
    """X(N) by the law."""
    result: Floats = scale * n / (1 + contention * (n - 1) + coherency * n * (n - 1))
    return result


def fit(concurrency: Sequence[float], rate: Sequence[float]) -> Usl | None:
    """Fit by least squares (Levenberg–Marquardt); errors from the covariance s²(JᵀJ)⁻¹. None with
    fewer than four points, or if they do not determine the law."""
    n, x = np.asarray(concurrency, float), np.asarray(rate, float)
    used = (n > 0) & (x > 0)
    n, x = n[used], x[used]
    if len(np.unique(n)) < 4:
        return None
    unit = float(x.max())
    found = _least_squares(n, x / unit)
    if found is None:
        return None
    parameters, errors, residuals = found
    scale, contention, coherency = (float(value) for value in parameters)
    total = float(np.sum((x / unit - np.mean(x / unit)) ** 2))
    peak = None
    if coherency > 0 and contention < 1:
        peak = float(np.sqrt((1 - contention) / coherency))
    at_peak = None
    if peak is not None:
        at_peak = unit * float(throughput(np.array([peak]), scale, contention, coherency)[0])
    return Usl(
        scale=scale * unit,
        scale_error=float(errors[0]) * unit,
        contention=contention,
        contention_error=float(errors[1]),
        coherency=coherency,
        coherency_error=float(errors[2]),
        r_squared=1 - float(residuals @ residuals) / total if total else 0.0,
        peak_concurrency=peak,
        peak_spans_per_s=at_peak,
        points=len(n),
    )


def _least_squares(n: Floats, x: Floats) -> tuple[Floats, Floats, Floats] | None:
    """Parameters, their standard errors and the residuals; None if nothing is determined."""
    parameters = np.array([float(np.max(x / n)), 0.1, 0.001])
    damping = 1e-3
    residuals = x - throughput(n, *parameters)
    for _ in range(ROUNDS):
        jacobian = _jacobian(n, parameters)
        normal = jacobian.T @ jacobian
        damped = normal + damping * np.diag(np.diag(normal) + 1e-12)
        step = np.linalg.solve(damped, jacobian.T @ residuals)
        tried = parameters + step
        left = x - throughput(n, *tried)
        if _possible(n, tried) and left @ left < residuals @ residuals:
            small = float(np.max(np.abs(step) / (np.abs(parameters) + 1e-12))) < 1e-10
            parameters, residuals, damping = tried, left, damping / 10
            if small:
                break
        else:
            damping *= 10
            if damping > 1e12:
                break
    jacobian = _jacobian(n, parameters)
    normal = jacobian.T @ jacobian
    if np.linalg.cond(normal) > 1e15:
        return None
    variance = float(residuals @ residuals) / max(len(n) - 3, 1)
    errors = np.sqrt(variance * np.diag(np.linalg.inv(normal)))
    return parameters, errors, residuals


def _possible(n: Floats, parameters: Floats) -> bool:
    """Whether the law gives a positive throughput at every point."""
    return bool(np.all(throughput(n, *parameters) > 0) and parameters[0] > 0)


def _jacobian(n: Floats, parameters: Floats) -> Floats:
    """The derivatives of X by λ, σ and κ, a row for each point."""
    scale, contention, coherency = parameters
    below = 1 + contention * (n - 1) + coherency * n * (n - 1)
    value = scale * n / below
    columns = (n / below, -value * (n - 1) / below, -value * n * (n - 1) / below)
    result: Floats = np.stack(columns, axis=1)
    return result
