"""What the WebUI executes: registers FRESCO. Everything else is in the package `fresco`."""

from fresco.webui.registration import load_script, register

register()
FrescoScript = load_script()
