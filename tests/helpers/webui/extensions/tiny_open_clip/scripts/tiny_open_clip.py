"""Makes the second text model of the small SDXL checkpoint known to A1111's open_clip."""

from pathlib import Path

import open_clip

open_clip.add_model_config(Path(__file__).resolve().parents[1] / "models")
