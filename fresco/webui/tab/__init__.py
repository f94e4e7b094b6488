"""The video tab: what its page shows and asks."""
