"""FRESCO in a WebUI: the script in img2img, the video tab, and the program around them."""
