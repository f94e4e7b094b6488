"""What the WebUI executes: registers FRESCO. Everything else is in the package `fresco`."""

from fresco.webui.img2img.script import FrescoScript
from fresco.webui.registration import register

__all__ = ["FrescoScript"]

register()
