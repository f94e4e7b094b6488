"""The host for models that diffusers loads, without a WebUI."""
