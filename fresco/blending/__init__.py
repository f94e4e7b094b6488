"""Join the two propagated sides of a frame: selection, histogram blend, gradient blend."""
