"""Run files, and the configuration files of other tools."""
