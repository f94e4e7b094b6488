"""Models that diffusers loads, without any WebUI."""
