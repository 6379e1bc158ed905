"""Training checkpoints (orbax): a resumed run equals an uninterrupted one."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import replacing
from siamrpn_jax.training import distributed
from siamrpn_jax.training.step import TrainState


class Checkpoints:
    """The checkpoints of one run's folder; the newest two are kept.

    A checkpoint appears under its name only when it is complete: a run that is killed
    while saving continues from the one before. The data stream is a function of seed
    and step, so the step is also the data position.

    Several processes share the folder; all must make the same calls.
    """

    def __init__(self, folder: Path | str, *, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._folder = Path(folder).absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=options,
            item_handlers={"state": ocp.StandardCheckpointHandler()},
        )

    def save(self, state: TrainState) -> None:
        """Starts to save a state in the background; ``close`` waits for it.

        Raises:
            OSError: naming the folder, if this or the last state cannot be written.
        """
        step = int(state.step)
        if step not in self._manager.all_steps():
            self._check_space(state)
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(distributed.as_global(state))
            )
            with self._naming_the_folder():
                self._manager.save(step, args=items)

    def _check_space(self, state: TrainState) -> None:
        """Fails early: orbax reports a full disk in pages of traceback."""
        needed = sum(x.nbytes for x in jax.tree.leaves(state))
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise OSError(
                f"cannot save to {self._folder}: a checkpoint takes up to "
                f"{needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
            )

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def restore(self, like: TrainState) -> TrainState:
        """The newest state.

        Args:
            like: a state of the same shapes, for example a fresh one; the restored
                arrays lie on the default device of each process, whatever devices
                saved them.

        Raises:
            InputError: there is none, or its arrays have other names or shapes.
        """
        self._manager.wait_until_finished()
        step = self.latest_step()
        if step is None:
            raise InputError(f"no checkpoint in {self._folder}")
        self._check_shapes(step, like)
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return self._manager.restore(step, args=items)["state"]

    def _check_shapes(self, step: int, like: TrainState) -> None:
        saved = _parameter_shapes(self._manager.item_metadata(step)["state"])
        wanted = _parameter_shapes({"params": like.params})
        wrong = configs.differences(saved, wanted)
        if wrong:
            raise InputError(
                f"checkpoint {self._folder / str(step)} is of another model: "
                f"{'; '.join(wrong[:5])}"
            )

    def close(self) -> None:
        """Waits until everything is on disk; raises as ``save``."""
        with self._naming_the_folder():
            self._manager.close()

    @contextlib.contextmanager
    def _naming_the_folder(self) -> Iterator[None]:
        try:
            yield
        except (
            ValueError,
            OSError,
        ) as error:  # tensorstore's full disk is a ValueError
            raise OSError(f"cannot save to {self._folder}: {error}") from error


def write_config(path: Path, config: Any) -> None:
    """Stores what a run was started with, as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(configs.to_json(config), indent=2) + "\n")


def read_config(path: Path, kind: type[configs.Config]) -> configs.Config:
    """Reads what ``write_config`` wrote.

    Raises:
        InputError: there is none, or it is not such a config.
    """
    if not path.is_file():
        raise InputError(f"nothing to resume: {path} is missing")
    try:
        return configs.from_json(kind, json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a run's config: {error}") from None


def check_same(path: Path, stored: Any, config: Any) -> None:
    """Refuses to resume a run with another config.

    Args:
        path: where ``stored`` comes from.
        stored: what the run was started with.
        config: what it is to go on with.

    Raises:
        InputError: naming the fields that differ.
    """
    differing = configs.differences(configs.to_json(stored), configs.to_json(config))
    if differing:
        raise InputError(
            f"{path.parent} was started with another config: {'; '.join(differing)}"
        )


def _parameter_shapes(tree: Any) -> dict[str, list[int]]:
    """Shapes by name of what lies under ``params``."""
    shapes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.startswith("params/"):
            shapes[name] = list(leaf.shape)
    return shapes
