"""Optical flow, occlusion, and what is computed from them."""
