"""FRESCO in the WebUI: the img2img script, the video tab, its jobs and the API."""
