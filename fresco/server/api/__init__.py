"""Routes under /fresco."""
