"""Training of the small model that the demo and the tests use."""
