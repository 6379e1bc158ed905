"""SiamFC's original weights: MATLAB files of MatConvNet, read by SciPy.

``net.params`` is a list of arrays with names that end in ``conv1f`` (kernel, ``[h, w,
I, O]`` as ours), ``conv1b``, ``bn1m`` (scale), ``bn1b``, ``bn1x`` (mean and standard
deviation, ``[C, 2]``) and so on, and what is done to the score: ``adjust_f`` and
``adjust_b``, a factor and a bias, or a BatchNorm in their place.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.model.rpn import SCORE_GAIN

_LAYERS = 5
_EXPECTED = "expected SiamFC's network of MatConvNet, parameters conv1f to adjust_b"


def read_matconvnet(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a ``.mat`` file of SiamFC.

    Args:
        path: of the file, as ``2016-08-17.net.mat``.

    Returns:
        its arrays under the names of siamfc-pytorch, the variances without anything
        added to them, and the bias of the score, ``head.bias``. Its factor, which our
        head fixes to ``SCORE_GAIN``, is in the last layer.

    Raises:
        InputError: no such file, or parameters that are missing or of another shape.
    """
    params = _read_params(Path(path))
    try:
        return _as_siamfc(params)
    except KeyError as error:
        found = ", ".join(sorted(params)[:8])
        raise InputError(
            f"{path}: has no {error.args[0]} among {len(params)} parameters ({found}, "
            f"…); {_EXPECTED}"
        ) from None
    except (IndexError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}; {_EXPECTED}") from None


def _read_params(path: Path) -> dict[str, np.ndarray]:
    """The arrays by the last part of their names: ``conv1f`` for ``br_conv1f``."""
    import scipy.io  # for this one file, half a second

    try:
        with path.open("rb") as file:
            content: Any = scipy.io.loadmat(file, struct_as_record=False)
        params = content["net"].flat[0].params
        arrays = {one.name.item(): one.value for one in params.flat}
        return {
            re.sub(r".*(?=(conv|bn)\d)|.*(?=adjust)", "", name): array.astype(
                np.float32
            )
            for name, array in arrays.items()
        }
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # which ones loadmat raises is not documented
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); {_EXPECTED}"
        ) from error


def _as_siamfc(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for i in range(1, _LAYERS + 1):
        conv, norm = f"backbone.conv{i}.0", f"backbone.conv{i}.1"
        found[f"{conv}.weight"] = params[f"conv{i}f"].transpose(3, 2, 0, 1)
        found[f"{conv}.bias"] = params[f"conv{i}b"].ravel()
        if i < _LAYERS:
            moments = params[f"bn{i}x"]
            found[f"{norm}.weight"] = params[f"bn{i}m"].ravel()
            found[f"{norm}.bias"] = params[f"bn{i}b"].ravel()
            found[f"{norm}.running_mean"] = moments[:, 0]
            found[f"{norm}.running_var"] = np.square(moments[:, 1])
    gain, bias = _read_adjustment(params)
    if not gain > 0:
        raise ValueError(f"the score's factor is {gain}, expected one above 0")
    for name in ("weight", "bias"):
        found[f"backbone.conv{_LAYERS}.0.{name}"] *= np.sqrt(gain / SCORE_GAIN)
    found["head.bias"] = np.array([bias], np.float32)
    return found


def _read_adjustment(params: dict[str, np.ndarray]) -> tuple[float, float]:
    """Factor and bias of the score."""
    if "adjust_bnm" not in params:
        bias = params.get("adjust_b", np.zeros(1))
        return float(params["adjust_f"].ravel()[0]), float(bias.ravel()[0])
    mean, deviation = params["adjust_bnx"].ravel()
    gain = float(params["adjust_bnm"].ravel()[0] / deviation)
    return gain, float(params["adjust_bnb"].ravel()[0] - gain * mean)
