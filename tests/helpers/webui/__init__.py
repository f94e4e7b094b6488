"""A double of the WebUI: its modules as an extension meets them, around a small real model.

Files are named after the WebUI's own modules. None of them knows FRESCO.
"""
