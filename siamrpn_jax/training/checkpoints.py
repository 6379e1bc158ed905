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
from siamrpn_jax.common.files import checksums, read_json, replacing, write_json
from siamrpn_jax.training import distributed
from siamrpn_jax.training.step import TrainState

_SUMS = ".sha256.json"
"""Ends the names of the files of checksums."""


class Checkpoints:
    """The checkpoints of one run's folder; the newest two are kept.

    A checkpoint appears under its name only when it is complete: a run that is killed
    while saving continues from the one before. Beside each lies a file with the
    checksums of all its files, which are verified before it is restored. The data
    stream is a function of seed and step, so the step is also the data position.

    Several processes share the folder; all must make the same calls.
    """

    def __init__(self, folder: Path | str, *, keep: int = 2):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=True
        )
        self._folder = Path(folder).absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=options,
            item_handlers={"state": ocp.StandardCheckpointHandler()},
        )

    def save(self, state: TrainState) -> None:
        """Saves a state, with its checksums.

        Raises:
            OSError: naming the folder, if the state cannot be written.
        """
        step = int(state.step)
        if step not in self._manager.all_steps():
            self._check_space(state)
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(distributed.as_global(state))
            )
            with self._naming_the_folder():
                self._manager.save(step, args=items)
                self._manager.wait_until_finished()
                self._seal(step)

    def _seal(self, step: int) -> None:
        """Writes the checksums of a checkpoint, and drops those of removed ones."""
        if not distributed.is_first():
            return
        write_json(self._sums(step), checksums(self._folder / str(step)))
        kept = {self._sums(one) for one in self._manager.all_steps()}
        for path in self._folder.glob(f"*{_SUMS}"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _sums(self, step: int) -> Path:
        return self._folder / f"{step}{_SUMS}"

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

    def restore(self, like: TrainState, *, step: int | None = None) -> TrainState:
        """A state, by default the newest; what was saved after it is removed.

        Args:
            like: a state of the same shapes, for example a fresh one; the restored
                arrays lie on the default device of each process, whatever devices
                saved them.
            step: of the checkpoint.

        Raises:
            InputError: there is none, a file of it is missing or was changed, or its
                arrays have other names or shapes.
        """
        steps = sorted(self._manager.all_steps())
        if step is None and not steps:
            raise InputError(f"no checkpoint in {self._folder}")
        chosen = steps[-1] if step is None else step
        if chosen not in steps:
            listed = ", ".join(map(str, steps)) or "none"
            raise InputError(
                f"{self._folder}: no checkpoint {chosen}, there are {listed}"
            )
        self._check_whole(chosen, steps)
        self._check_shapes(chosen, like)
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        state = self._manager.restore(chosen, args=items)["state"]
        for later in steps[steps.index(chosen) + 1 :]:
            self._manager.delete(later)
        return state

    def _check_whole(self, step: int, steps: list[int]) -> None:
        """Raises InputError naming the first file that is not as it was saved."""
        problem = self._damage(step)
        if not problem:
            return
        whole = [other for other in steps if other != step and not self._damage(other)]
        instead = (
            f"--checkpoint {whole[-1]} goes on from an older one that is whole"
            if whole
            else "no other one is whole"
        )
        raise InputError(f"checkpoint {self._folder / str(step)}: {problem}; {instead}")

    def _damage(self, step: int) -> str:
        """What is wrong with the files of a checkpoint: nothing, as a rule.

        One without checksums is of an earlier version of this package, or the run was
        killed between the two: it is taken as it is.
        """
        if not self._sums(step).exists():
            return ""
        try:
            saved = read_json(self._sums(step))
        except InputError:
            return f"{self._sums(step).name} is damaged"
        found = checksums(self._folder / str(step))
        for name, digest in saved.items():
            if name not in found:
                return f"{name} is missing"
            if found[name] != digest:
                return f"{name} was changed since it was saved"
        return ""

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
        return configs.from_json(kind, read_json(path))
    except (ValueError, TypeError, AttributeError) as error:
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
