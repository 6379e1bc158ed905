"""The one family of errors that a user can mend."""


class InputError(ValueError):
    """A value or file that cannot be used; says which, and what was expected.

    The commands print it in one line. Any other exception is a fault of the program and
    keeps its traceback.
    """
