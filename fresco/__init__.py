"""FRESCO: training-free video-to-video translation with Stable Diffusion."""

__version__ = "0.1.0"
