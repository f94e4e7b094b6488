"""Jobs: what they are, their folders, their engine."""
