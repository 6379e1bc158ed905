"""How a command ends: the errors that a user can mend in one line, and signals."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

from siamrpn_jax.common.errors import InputError, MissingExtraError

Config = TypeVar("Config")


def run_or_exit(run: Callable[[], object]) -> None:
    """Calls ``run``; what a user can mend ends the program with status 2.

    These are bad values, files that are missing or broken, and extras that are not
    installed. Anything else is a fault of the program and keeps its traceback. Where
    the reader of the output has gone, as in ``siamrpn train --help | head``, the
    status is the shell's for that signal, 128 + 13.
    """
    try:
        run()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would raise again as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + 13) from None  # SIGPIPE, which Windows lacks
    except (InputError, OSError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def train_or_exit(parse: Callable[[], Config], run: Callable[[Config], object]) -> None:
    """Parses the command line and trains, as one of several processes where it is.

    Args:
        parse: the command line as a config; ``--help`` ends here, without JAX.
        run: trains.
    """

    def parse_and_run() -> None:
        config = parse()
        from siamrpn_jax.training import distributed

        with distributed.ending_together():
            run_or_exit(lambda: run(config))

    run_or_exit(parse_and_run)


@contextlib.contextmanager
def ending_cleanly() -> Iterator[None]:
    """In the body SIGTERM raises SystemExit, so that what is half written goes.

    The status is the shell's for a signal, 128 + 15: schedulers must not read the end
    as success.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
