"""A smoke test of the extension in a real WebUI: `python -m tests.hosts_smoke HOST_DIR`."""
