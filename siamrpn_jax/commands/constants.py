"""Options ``--tracker.*``: constants of tracking in place of those of the weights."""

import ast
import dataclasses
import inspect
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.tracking.config import TrackerConfig

Setting = Mapping[str, Any]
"""Values of some fields of ``TrackerConfig``, by their names."""


def _make_options() -> type:
    """A class with the fields of ``TrackerConfig``, each with any number of values."""
    (tree,) = ast.parse(inspect.getsource(TrackerConfig)).body
    assert isinstance(tree, ast.ClassDef)
    texts = {
        field.target.id: " ".join(ast.literal_eval(text.value).split())
        for field, text in itertools.pairwise(tree.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
    }
    options = [
        (
            field.name,
            Annotated[
                tuple[field.type, ...], tyro.conf.arg(help=texts[field.name])  # type: ignore
            ],
            dataclasses.field(default=()),
        )
        for field in dataclasses.fields(TrackerConfig)
    ]
    return dataclasses.make_dataclass("Constants", options, frozen=True)


if TYPE_CHECKING:

    class Constants:
        """Values of the command line: none where those of the weights are wanted."""
else:
    Constants = _make_options()

ConstantsOption = Annotated[
    Constants,
    tyro.conf.arg(
        name="tracker",
        help="Constants of tracking in place of those of the weights; several values "
        "make several trackers; with several such options, one for each combination.",
    ),
]
"""The type of the field that holds them."""


def settings_of(constants: Constants) -> list[Setting]:
    """Every combination of the values given; one empty setting where there are none."""
    given = {
        field.name: values
        for field in dataclasses.fields(TrackerConfig)
        if (values := getattr(constants, field.name))
    }
    return [
        dict(zip(given, values, strict=True))
        for values in itertools.product(*given.values())
    ]


def single_setting(constants: Constants) -> Setting:
    """The one setting of a command that runs a single tracker.

    Raises:
        InputError: an option has several values.
    """
    setting, *others = settings_of(constants)
    if others:
        names = [name for name, value in setting.items() if others[-1][name] != value]
        raise InputError(
            f"--tracker.{names[0].replace('_', '-')} has several values, expected one"
        )
    return setting


def describe(setting: Setting) -> str:
    """The setting behind a tracker's name: ``[center_size=3,penalty_k=0.1]``."""
    if not setting:
        return ""
    return f"[{','.join(f'{name}={value}' for name, value in setting.items())}]"
