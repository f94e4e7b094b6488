"""Every tolerance of the tests, named, in one place."""

from __future__ import annotations

import torch

EXACT_BY_DTYPE = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}
"""Largest difference of two evaluations of one formula in other orders, values near 1."""
BLEND_MEAN_LEVELS = 0.5
"""Mean grey levels between our blend and the official one (golden/07)."""
BLEND_MAX_LEVELS = 4
"""Largest grey levels between our blend and the official one (golden/07)."""
SOLVER_LAB = 1e-3
"""Lab levels that LSQR at its default tolerances misses the exact solution by."""
CHANGE_SCORE_RELATIVE = 1e-5
"""Relative difference of a change score to the official curve; 2.5e-7 was measured."""
GMFLOW_MEAN_PIXELS = 4e-4
"""Mean difference of flow to the official network on random weights, which sharpen matching."""
GMFLOW_BACKBONE = 1e-3
"""Largest difference of features before matching; 3.5e-5 was measured."""
KNOWN_FLOW_PIXELS = 0.2
"""Mean error of DIS on a texture moved by a known smooth flow; 0.06 was measured."""
SUBJECT_OVERLAP = 0.8
"""Share of a moving square that a motion mask must cover, and of the rest it must leave."""
EGNET_SALIENCY = 1e-3
"""Largest difference of the background mask from given probabilities (golden/08)."""

COLOR_MEAN = 2.0
"""Grey levels a picture may change, on average, by a round trip through a written video."""

COLOR_BIAS = 0.3
"""Grey levels a channel's mean may change by a round trip: less than the usual darkening of 1."""
GOLDEN_LINEAR = 1e-4
"""Largest difference of latents to the official run where nothing is optimised (golden/10)."""
GOLDEN_TWO_ITERATIONS_MEAN = 5e-3
"""Mean difference of latents with two iterations; the official code on other CPUs: 3.5e-3."""
GOLDEN_OPTIMIZED_MEAN = 0.1
"""Mean difference of latents with 20 iterations; the official code on other CPUs: 4.3e-2."""
CAPTURED_INPUT = 1e-4
"""Largest difference of attention inputs in the reference pass; 1.5e-5 was measured."""
GOLDEN_STEP = 2e-4
"""Largest difference of a sampler's step to the official one (golden/06)."""
GUIDANCE_GOLDEN = 1e-5
"""Attention, smoothing and FreeU against the official outputs (golden/04, 05, 06, 09)."""
OPTIMIZATION_MEAN = 5e-3
"""Mean difference of a whole optimisation to the official one: L1 with Adam amplifies rounding."""
OPTIMIZATION_P99 = 0.1
"""99th percentile of the same difference."""
OPTIMIZATION_LOSS = 5e-3
"""Relative difference of the loss curve to the official one."""
OPTIMIZATION_PLAIN = 1e-5
"""Difference of an optimisation to the plain version of the same formula, in float64."""
HALF_WEIGHTS_RELATIVE = 5e-3
"""Relative difference of a UNet's output once its weights were rounded to float16."""
DEMO_MODEL_PSNR = 20.0
"""dB that the demo model's autoencoder must keep of frames it never saw."""
HALF_WEIGHTS_LEVELS = 2
"""Grey levels that a VAE's picture may change by when its weights are rounded to float16."""

PIPELINE = 1e-4
"""Latents against those of a pipeline of diffusers: the same networks, called alike."""
