"""The script FRESCO in img2img."""
