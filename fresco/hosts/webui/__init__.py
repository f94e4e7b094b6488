"""The host for the model and sampler of a running WebUI."""
