"""FRESCO in a WebUI: the script in img2img, the tab, and their environment."""
