"""Optical flow, occlusion and what follows from them."""
