"""Vectors of our own."""
