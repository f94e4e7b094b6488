"""Guided UNets of LDM and sgm, which the WebUI uses."""
