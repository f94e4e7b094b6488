"""The method: attention, feature optimisation and smoothing inside the UNet."""
