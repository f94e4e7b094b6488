"""What the WebUI executes: registers FRESCO. Everything else is in the package `fresco`."""

from fresco.webui.registration import register
from fresco.webui.script import FrescoScript

__all__ = ["FrescoScript"]

register()
