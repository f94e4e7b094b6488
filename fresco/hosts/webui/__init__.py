"""The model and sampling of a running WebUI."""
