"""The gradient blend as sparse least squares: the plain version that ours is measured against."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray


def difference_matrices(rows: int, columns: int) -> tuple[scipy.sparse.csr_matrix, ...]:
    """Forward differences along x and along y of a row-major image, none across the border."""

    def step(size: int) -> scipy.sparse.csr_matrix:
        return scipy.sparse.csr_matrix(np.eye(size - 1, size, 1) - np.eye(size - 1, size))

    along_x = scipy.sparse.kron(scipy.sparse.identity(rows), step(columns))
    along_y = scipy.sparse.kron(step(rows), scipy.sparse.identity(columns))
    return scipy.sparse.csr_matrix(along_x), scipy.sparse.csr_matrix(along_y)


def plain_blend(
    blend: NDArray[np.floating],
    along_x: NDArray[np.floating],
    along_y: NDArray[np.floating],
    weights: tuple[float, ...],
) -> NDArray[np.floating]:
    """[Gx w; Gy w; I] x = [gx w; gy w; blend - mean] + mean, by LSQR at its default tolerances."""
    rows, columns, channels = blend.shape
    matrix_x, matrix_y = difference_matrices(rows, columns)
    result = np.empty_like(blend)
    for channel in range(channels):
        weight = weights[channel]
        matrix = scipy.sparse.vstack(
            [weight * matrix_x, weight * matrix_y, scipy.sparse.identity(rows * columns)],
            format="csr",
        )
        mean = blend[..., channel].mean()
        right = np.concatenate([
            weight * along_x[..., channel].ravel(),
            weight * along_y[..., channel].ravel(),
            (blend[..., channel] - mean).ravel(),
        ])
        solution = scipy.sparse.linalg.lsqr(matrix, right)[0]
        result[..., channel] = solution.reshape(rows, columns) + mean
    return result
