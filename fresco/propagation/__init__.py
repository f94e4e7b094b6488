"""From keyframes to all frames."""
