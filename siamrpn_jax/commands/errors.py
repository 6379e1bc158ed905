"""Turns the errors that a user can mend into one line on stderr."""

import sys
from collections.abc import Callable

from siamrpn_jax.common.errors import InputError, MissingExtraError


def run_or_exit(run: Callable[[], object]) -> None:
    """Calls ``run``; what a user can mend ends the program with status 2.

    These are bad values, files that are missing or broken, and extras that are not
    installed. Anything else is a fault of the program and keeps its traceback.
    """
    try:
        run()
    except (InputError, OSError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
