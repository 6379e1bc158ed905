"""Optional dependencies: import them when they are needed, name the extra if absent."""

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message says how to get it."""


def require(module: str, *, extra: str) -> ModuleType:
    """Imports an optional module.

    Args:
        module: dotted name of the module, for example ``"matplotlib.figure"``.
        extra: the extra of this package that installs it, for example ``"train"``.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # installed, and broken itself
        raise MissingExtraError(
            f"{package} is not installed: pip install 'siamrpn-jax[{extra}]'"
        ) from error
