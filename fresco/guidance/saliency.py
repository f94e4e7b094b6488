"""Background masks for smoothing: 1 = background.

`compute_motion_saliency` needs no weights: the subject is what moves against the camera. `U2NetP`
is a small network run by OpenCV.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fresco.errors import WeightsError
from fresco.flow.occlusion import BidirectionalFlow
from fresco.flow.warp import resize, token_grid
from fresco.progress import Progress
from fresco.settings import FlowSettings
from fresco.weights import U2NETP, ensure_weights, weights_folder

GROWTH = 7
"""Side of the box sum that grows the subject (docs/method.md, section 8)."""
MASK_SCALE = 2
"""The subject's probability is computed at half the frame's size, as in the official tool."""
FIT_CELL = 4
"""Pixels a sample of the camera's motion covers."""
FIT_ROUNDS = 12
"""Reweighted fits; the estimate stands still after about eight."""
CENTRE_TRUST = 0.1
"""How much the centre and the lower border count against the other borders: that is
where subjects are."""
STILL, MOVING = 1.0, 3.0
"""Residual motion, in units of the noise, that is surely not a subject, and surely one."""
LEAST_NOISE = 0.004
"""Smallest noise assumed, as a share of the frame's longer side: parallax and flow errors."""
SMOOTHING = 0.012
"""Blur of the motion's evidence, as a share of the mask's longer side."""
SPECK = 0.025
"""Half the side of a square no subject is smaller than, as a share of the mask's longer side."""
SURE_BACKGROUND, SURE_SUBJECT = 0.35, 0.65
"""Evidence below which nothing, and above which all, is subject: the
box sum would add up small values."""
NETWORK_SIDE = 320
"""Input side of u2netp."""
HAZE, CERTAIN = 0.1, 0.5
"""Probabilities of u2netp taken as 0 and as 1: the box sum would add up small values."""
_MEAN = np.array((0.485, 0.456, 0.406), np.float32)
_STD = np.array((0.229, 0.224, 0.225), np.float32)


def mark_background(probability: Tensor) -> Tensor:
    """1 - clamp(7x7 box sum of the subject's probability), [N, 1, H, W]; borders repeated."""
    margin = GROWTH // 2
    grown = F.pad(probability, (margin,) * 4, mode="replicate")
    return 1 - (F.avg_pool2d(grown, GROWTH, stride=1) * GROWTH**2).clamp(0, 1)


def make_planar_terms(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Terms of the motion of a plane, by pixel, along x and along y: each [rows * columns, 8].

    The eight-parameter model of a rigid plane seen by a moving camera.
    """
    half = max(rows, columns) / 2
    ys = (torch.arange(rows, dtype=torch.float64) + 0.5 - rows / 2) / half
    xs = (torch.arange(columns, dtype=torch.float64) + 0.5 - columns / 2) / half
    y, x = (grid.flatten() for grid in torch.meshgrid(ys, xs, indexing="ij"))
    one, none = torch.ones_like(x), torch.zeros_like(x)
    return (
        torch.stack((one, x, y, none, none, none, x * x, x * y), dim=1),
        torch.stack((none, none, none, one, x, y, x * y, y * y), dim=1),
    )


def _find_weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """[B, M] -> [B, 1]."""
    order = values.argsort(dim=1)
    share = weights.gather(1, order).cumsum(dim=1)
    middle = (share < share[:, -1:] / 2).sum(dim=1, keepdim=True).clamp(max=values.shape[1] - 1)
    return values.gather(1, order).gather(1, middle)


def fit_camera_motion(flow: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
    """Dominant motion of a plane, by reweighted least squares (Geman-McClure).

    Args:
        flow: [B, 2, h, w] pixels.
        trust: [B, h, w], how much each sample counts.

    Returns:
        Parameters [B, 8] of `make_planar_terms` and the noise [B, 1] in pixels, both float64.
    """
    rows, columns = flow.shape[-2:]
    along_x, along_y = make_planar_terms(rows, columns)
    along_x, along_y = along_x.to(flow.device), along_y.to(flow.device)
    measured = flow.double().flatten(2)  # [B, 2, M]
    base = trust.double().flatten(1) + 1e-6
    weights = base
    parameters = measured.new_zeros(len(flow), 8)
    noise = measured.new_ones(len(flow), 1)
    ridge = 1e-6 * torch.eye(8, dtype=torch.float64, device=flow.device)
    for _ in range(FIT_ROUNDS):
        share = (weights / weights.sum(dim=1, keepdim=True))[:, :, None]
        normal = along_x.T @ (share * along_x) + along_y.T @ (share * along_y)
        right = along_x.T @ (share * measured[:, 0, :, None])
        right = right + along_y.T @ (share * measured[:, 1, :, None])
        parameters = torch.linalg.solve(normal + ridge, right)[..., 0]
        moved = torch.stack((parameters @ along_x.T, parameters @ along_y.T), dim=1)
        residual = torch.linalg.vector_norm(measured - moved, dim=1)
        noise = 1.4826 * _find_weighted_median(residual, base) + 1e-3
        weights = base / (1 + (residual / noise).square()).square()
    return parameters, noise


def _measure_residual(flow: Tensor, parameters: Tensor) -> Tensor:
    """Length [B, h, w] of the difference between a flow and the camera's motion."""
    along_x, along_y = make_planar_terms(flow.shape[-2], flow.shape[-1])
    moved = torch.stack((parameters @ along_x.to(flow.device).T,
                         parameters @ along_y.to(flow.device).T), dim=1)
    return torch.linalg.vector_norm(flow - moved.view(flow.shape), dim=1).float()


def _weigh_by_place(rows: int, columns: int) -> Tensor:
    """[h, w]: CENTRE_TRUST, rising to 1 at the left, right and upper border."""
    ys = (torch.arange(rows) + 0.5) / rows * 2 - 1
    xs = (torch.arange(columns) + 0.5) / columns * 2 - 1
    far = torch.maximum((-ys).clamp(min=0)[:, None], xs.abs()[None])
    return CENTRE_TRUST + (1 - CENTRE_TRUST) * ((far - 0.5) / 0.4).clamp(0, 1)


def _judge_motion(flow: Tensor, occlusion: Tensor) -> Tensor:
    """Probability [B, 1, H/2, W/2] that a pixel moves against the camera."""
    height, width = flow.shape[-2:]
    coarse = token_grid(height, width, FIT_CELL)
    seen = 1 - resize(occlusion[:, None], coarse)[:, 0]
    trust = seen * _weigh_by_place(*coarse).to(flow.device)
    parameters, noise = fit_camera_motion(resize(flow, coarse), trust)
    fine = resize(flow, token_grid(height, width, MASK_SCALE))
    noise = noise.float().clamp(min=LEAST_NOISE * max(height, width))[:, :, None]
    excess = _measure_residual(fine, parameters) / noise
    step = ((excess - STILL) / (MOVING - STILL)).clamp(0, 1)
    return (step.square() * (3 - 2 * step))[:, None]


def _blur(x: Tensor, sigma: float) -> Tensor:
    radius = max(1, round(3 * sigma))
    at = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-(at / sigma).square() / 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), kernel)
    return F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), kernel.transpose(2, 3))


def _open(x: Tensor, radius: int) -> Tensor:
    """Grey opening by a square: parts narrower than it vanish, others keep their outline."""
    side = 2 * radius + 1
    thin = -F.max_pool2d(-x, side, stride=1, padding=radius)
    return F.max_pool2d(thin, side, stride=1, padding=radius)


def estimate_subject_probability(flow: BidirectionalFlow) -> Tensor:
    """Probability [N, 1, H/2, W/2] that a pixel belongs to the subject, by its motion.

    Every frame is judged by its flows to its neighbours; the pair that closes the ring spans the
    whole batch and is not used.
    """
    count, _, height, width = flow.forward.shape
    size = token_grid(height, width, MASK_SCALE)
    total = flow.forward.new_zeros(count, 1, *size)
    if count == 1:
        return total
    weight = torch.full_like(total, 1e-3)
    for flows, masks, frames in (
        (flow.forward[:-1], flow.forward_occlusion[:-1], slice(0, count - 1)),
        (flow.backward[:-1], flow.backward_occlusion[:-1], slice(1, count)),
    ):
        seen = 1 - resize(masks[:, None], size) + 0.05  # the occluded count little, not nothing
        total[frames] += _judge_motion(flows, masks) * seen
        weight[frames] += seen
    # Normalised convolution: where a flow cannot be trusted, the surroundings decide.
    sigma = SMOOTHING * max(size)
    smooth = _open(_blur(total, sigma) / _blur(weight, sigma), round(SPECK * max(size)))
    return ((smooth - SURE_BACKGROUND) / (SURE_SUBJECT - SURE_BACKGROUND)).clamp(0, 1)


def compute_motion_saliency(flow: BidirectionalFlow) -> Tensor:
    """Background mask [N, 1, H, W] of a batch: 0 where something moves against the camera."""
    height, width = flow.forward.shape[-2:]
    return resize(mark_background(estimate_subject_probability(flow)), (height, width))


class U2NetP:
    """Background masks by the salient-object network u2netp, on the CPU."""

    def __init__(self, path: Path) -> None:
        try:
            self._network = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise WeightsError(
                f"{path} is not a network that OpenCV {cv2.__version__} can read: {error}. Fetch "
                "u2netp again, or set guidance.saliency to motion."
            ) from error

    def probability(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability [320, 320] of the subject in an RGB frame [H, W, 3]."""
        small = cv2.resize(frame, (NETWORK_SIDE, NETWORK_SIDE), interpolation=cv2.INTER_AREA)
        scaled = small.astype(np.float32) / max(1, int(small.max()))
        inputs = (scaled - _MEAN) / _STD
        self._network.setInput(np.ascontiguousarray(inputs.transpose(2, 0, 1)[None]))
        return self._network.forward()[0, 0]

    def find(self, frames: NDArray[np.uint8]) -> Tensor:
        """Probability [N, 1, 320, 320] of the subject in frames [N, H, W, 3], without faint values.
        """
        found = np.stack([self.probability(frame) for frame in frames])
        return ((torch.from_numpy(found)[:, None] - HAZE) / (CERTAIN - HAZE)).clamp(0, 1)

    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        """Background mask [N, 1, H, W] of frames [N, H, W, 3]."""
        height, width = frames.shape[1:3]
        half = resize(self.find(frames), token_grid(height, width, MASK_SCALE))
        return resize(mark_background(half), (height, width))


def compute_saliency(
    frames: NDArray[np.uint8], flow: BidirectionalFlow, choice: str, settings: FlowSettings, *,
    progress: Progress | None = None,
) -> Tensor:
    """Background mask [N, 1, H, W] by the method chosen: `motion` or `u2netp`."""
    if choice == "motion":
        return compute_motion_saliency(flow)
    return _open_network(settings, progress)(frames)


def _open_network(settings: FlowSettings, progress: Progress | None) -> U2NetP:
    folder = weights_folder(settings.weights_dir)
    return U2NetP(ensure_weights(U2NETP, folder, offline=settings.offline, progress=progress))


def estimate_subject(
    frames: NDArray[np.uint8], flow: BidirectionalFlow | None, settings: FlowSettings, *,
    progress: Progress | None = None,
) -> Tensor:
    """Probability [N, 1, H, W] of the subject, not grown as for smoothing.

    Args:
        frames: [N, H, W, 3] RGB, in order.
        flow: of these frames, to judge by motion; None: by u2netp.
    """
    found = _open_network(settings, progress).find(frames) if flow is None else (
        estimate_subject_probability(flow)
    )
    return resize(found, (frames.shape[1], frames.shape[2]))
