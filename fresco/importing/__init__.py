"""Configuration files of other tools, in the words of our settings."""
