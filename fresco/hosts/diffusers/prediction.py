"""Find out what a model predicts, and whether its noise schedule has zero terminal SNR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fresco.errors import HostError
from fresco.hosts.detection import SD2
from fresco.hosts.tensor_file import TensorFile

_PREDICTIONS: dict[str, dict[str, Any]] = {
    "epsilon": {"prediction_type": "epsilon"},
    "v": {"prediction_type": "v_prediction"},
    "v-ztsnr": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
}
"""The option -> what it says of a noise schedule."""


def name_prediction(prediction: str) -> dict[str, Any]:
    """What the option sampling.prediction changes in a model's schedule; auto: nothing."""
    if prediction == "auto":
        return {}
    return {"rescale_betas_zero_snr": False} | _PREDICTIONS[prediction]


def find_prediction(file: TensorFile, family: str, prediction: str) -> dict[str, Any]:
    """Find what a checkpoint predicts: by the option, by its marks, or by a yaml beside it.

    The marks are those that the WebUI reads.
    """
    if prediction != "auto":
        return _PREDICTIONS[prediction]
    ztsnr = "ztsnr" in file.shapes
    if "v_pred" in file.shapes:
        return _PREDICTIONS["v-ztsnr" if ztsnr else "v"]
    beside = _read_parameterization(file.path.with_suffix(".yaml"))
    if beside == "v":
        return _PREDICTIONS["v-ztsnr" if ztsnr else "v"]
    if ztsnr:
        raise HostError(
            f"{file.path.name} has a schedule that ends in pure noise (ztsnr), where only a model "
            "that predicts v can work; if it does, set sampling.prediction to v-ztsnr."
        )
    if beside is None and family == SD2:
        raise HostError(
            f"{file.path.name} is {SD2} and does not say what it predicts; set "
            "sampling.prediction: v for models of 768 pixels, epsilon for those of 512."
        )
    return _PREDICTIONS["epsilon"]


def _read_parameterization(beside: Path) -> str | None:
    """Read from a model's yaml whether it predicts v or eps; None if there is no yaml."""
    try:
        about = yaml.safe_load(beside.read_text("utf-8")) if beside.is_file() else None
        if about is None:
            return None
        of_model = about["model"]["params"]
        denoiser = of_model.get("denoiser_config")
        if denoiser is not None:  # SDXL's
            scaling = str(denoiser["params"]["scaling_config"]["target"])
            return "v" if "VScaling" in scaling else "eps"
        return of_model.get("parameterization", "eps")
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise HostError(
            f"{beside} is not a configuration of Stable Diffusion; mend it or move it away."
        ) from error
