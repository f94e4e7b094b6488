"""FRESCO in img2img: the script and what it does in a call."""
