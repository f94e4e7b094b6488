"""Chooses keyframes, batches and prompts."""
