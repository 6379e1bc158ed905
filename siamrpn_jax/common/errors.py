"""The one family of errors that a user can mend."""


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
