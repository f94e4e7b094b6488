"""Adapters of diffusion models."""
