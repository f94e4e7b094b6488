"""Which frames are translated, together with which others, and with which words."""
