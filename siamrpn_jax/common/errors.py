"""The errors that a user can mend, and optional dependencies, imported when needed."""

import importlib
from types import ModuleType


class InputError(ValueError):
    """A value or file that cannot be used; says which, and what was expected.

    The commands print it in one line. Any other exception is a fault of the program and
    keeps its traceback.
    """


def check_least(config: object, least: float, *names: str) -> None:
    """Checks fields of a config.

    Raises:
        InputError: naming the first field below ``least`` and its value.
    """
    for name in names:
        value = getattr(config, name)
        if not value >= least:
            raise InputError(f"{name} is {value}, expected at least {least}")


def check_range(config: object, low: float, high: float, *names: str) -> None:
    """Checks fields of a config, or each element where they are tuples.

    None passes, and so do arrays: the numbers of some configs are data.

    Raises:
        InputError: naming the first field that is not in ``low``..``high``.
    """
    for name in names:
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, int | float) and not low <= one <= high:
                raise InputError(f"{name} is {value}, expected {low:g} to {high:g}")


def reason_of(error: Exception) -> str:
    """What an error says, without the number and the file that the system adds."""
    return getattr(error, "strerror", None) or str(error)


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
