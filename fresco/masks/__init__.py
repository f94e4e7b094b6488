"""Masks of what is translated: read, found, carried from frame to frame, laid over the source."""
