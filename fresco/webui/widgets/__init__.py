"""Gradio controls that the script in img2img and the tab share."""
