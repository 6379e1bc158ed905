"""The command line that all parsers share."""

import dataclasses
import functools
import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from data_prep import workers
from data_prep.tracks import Dataset, Options, PreparationError
from data_prep.writer import Runner, prepare
from siamrpn_jax.commands.errors import run_or_exit

_BEAM_HELP = "Write the shards by Apache Beam; its own options follow after --."


def main(name: str, argv: Sequence[str] | None = None) -> None:
    """Entry point of ``python data_prep/NAME.py``.

    Ends the process with status 1 where too many records were rejected, 2 where the
    user has to mend something, and 130 where the preparation was interrupted.

    Args:
        name: of a module in ``data_prep``, or with dots of any other. Its ``DATASET``
            is prepared; the workers import it by this name.
        argv: the arguments; those of the process by default.
    """
    module = importlib.import_module(name if "." in name else f"data_prep.{name}")

    def parse_and_run() -> None:
        own, beam_arguments = _split(sys.argv[1:] if argv is None else argv)
        options, beam = _parse(module.DATASET, own)
        _run(module.DATASET, options, _runner(options, beam, beam_arguments))

    run_or_exit(parse_and_run)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Arguments of our own, and what follows ``--`` if that is there."""
    arguments = list(argv)
    if "--" not in arguments:
        return arguments, None
    end = arguments.index("--")
    return arguments[:end], arguments[end + 1 :]


def _parse(dataset: Dataset, argv: list[str]) -> tuple[Any, bool]:
    """The options, and whether Apache Beam is to run the work."""
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("options", Annotated[dataset.options, tyro.conf.arg(name="")]),
            ("beam", Annotated[bool, tyro.conf.arg(help=_BEAM_HELP)], False),
        ],
    )
    given = tyro.cli(
        command,
        args=argv,
        prog=f"data_prep/{dataset.name}.py",
        description=f"Prepare {dataset.title} for training.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return given.options, given.beam


def _runner(options: Options, beam: bool, beam_arguments: list[str] | None) -> Runner:
    if not beam:
        if beam_arguments is not None:
            raise PreparationError("arguments after -- are Beam's, expected --beam")
        return functools.partial(workers.run, workers=options.workers)
    from data_prep import beam as beam_runner  # apache_beam: for those who have it

    return functools.partial(beam_runner.run, arguments=beam_arguments or [])


def _run(dataset: Dataset, options: Options, runner: Runner) -> None:
    try:
        summary = prepare(dataset, options, run=runner)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    print("\n".join([f"{dataset.title}:", *summary.lines()]))
    if not summary.accepted:
        print(summary.refusal(), file=sys.stderr)
        raise SystemExit(1)
