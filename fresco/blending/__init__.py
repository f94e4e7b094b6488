"""Two propagated sides of a frame become one: selection, histogram blend, gradient blend."""
