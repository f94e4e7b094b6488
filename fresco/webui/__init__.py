"""FRESCO in the WebUI: the img2img script, later the tab and the API."""
