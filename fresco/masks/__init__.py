"""Masks of the part that is translated: read, found, tracked, and applied to the result."""
