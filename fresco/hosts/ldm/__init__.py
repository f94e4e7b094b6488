"""The seam on UNets of LDM and sgm, which the WebUI uses."""
