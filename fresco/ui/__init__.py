"""The tab and its API on the diffusers host, without any WebUI: `fresco ui`."""
