"""Figures of the house: ``python tests/house.py`` prints how large and how tidy it is.

Lines, files in the package's root, lengths of functions, the share of public names
with a docstring, and how many files of the package three journeys visit: from a frame
to a box, from a pair to its gradient, from VOT's result files to an EAO.
"""

import ast
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCES = ("siamrpn_jax", "experiments", "data_prep")


def source_files() -> list[Path]:
    """All source files, tests excluded."""
    return sorted(path for name in SOURCES for path in (ROOT / name).rglob("*.py"))


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """All functions and methods of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def length(function: ast.FunctionDef) -> int:
    """Lines of a function, its docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def documented_share(paths: list[Path]) -> float:
    """Share of public functions, methods and classes with a docstring."""
    public = [
        ast.get_docstring(node) is not None
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
    ]
    return statistics.mean(public)


def visited_files(journey: Callable[[], Any]) -> list[str]:
    """Files of the package whose functions a call runs, in the order they are met."""
    package = str(ROOT / "siamrpn_jax")
    files: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(package) and name not in files:
            files.append(name)

    sys.setprofile(note)
    try:
        journey()
    finally:
        sys.setprofile(None)
    return [str(Path(name).relative_to(package)) for name in files]


def frame_to_box() -> Callable[[], Any]:
    """One step of tracking, traced anew."""
    import jax
    import numpy as np

    from siamrpn_jax import init_track, load_weights, track_step
    from siamrpn_jax.data.scenes.generated import make_sequence
    from siamrpn_jax.model import fused

    loaded = load_weights("small")
    frames, _ = make_sequence(3, length=2)
    weights = fused.fuse(loaded.model, loaded.variables)
    box = np.array([40.0, 60, 30, 20], np.float32)
    template, state = init_track(weights, frames[0], box, model=loaded.model)
    jax.clear_caches()
    return lambda: track_step(
        weights,
        template,
        state,
        frames[1],
        model=loaded.model,
        config=loaded.tracker_config,
    )


def pair_to_gradient() -> Callable[[], Any]:
    """Two pairs of a folder, or of generated scenes, to the next state."""
    import dataclasses

    import jax

    from siamrpn_jax.data.pairs import loader
    from siamrpn_jax.model.network import SiamRPN
    from siamrpn_jax.presets import small
    from siamrpn_jax.training import step

    recipe = small()
    data = dataclasses.replace(recipe.data, folders=tuple(sys.argv[1:]))
    model = SiamRPN(recipe.model)
    start = lambda key: step.init_state(key, model=model, config=recipe.train)  # noqa: E731

    def journey() -> None:
        dataset, _ = loader.open_datasets(
            data,
            exemplar_size=recipe.model.exemplar_size,
            instance_size=recipe.model.instance_size,
            augment=recipe.augment,
        )
        batch = loader.stack([dataset[0], dataset[1]])
        state = jax.eval_shape(start, jax.random.key(0))
        jax.eval_shape(
            lambda s, b: step.train_step(s, b, model=model, config=recipe.train),
            state,
            batch,
        )

    return journey


def results_to_eao() -> Callable[[], Any]:
    """Files of results and of ground truth to an expected average overlap."""
    import tempfile

    import numpy as np

    from siamrpn_jax.evaluation import results
    from siamrpn_jax.evaluation.vot import dataset, generated, metrics, regions
    from siamrpn_jax.evaluation.vot.protocols import read_runs

    root = Path(tempfile.mkdtemp())
    generated.write_synthetic(root)
    for one in dataset.read_vot_dataset(root):
        rows = [np.array([float(regions.STARTED)]), *one.regions[1:]]
        path = results.vot_run_path(root / "results", one.name, 1)
        results.write_trajectory(path, tuple(rows))

    def journey() -> None:
        truth = dataset.read_vot_dataset(root)
        runs = {
            one.name: [run.regions for run in read_runs(root / "results", one)]
            for one in truth
        }
        metrics.evaluate(runs, truth, interval=generated.INTERVAL)

    return journey


def main() -> None:
    """Prints the figures; folders of training data on the command line are used."""
    files = source_files()
    lengths = sorted(length(f) for path in files for f in functions(path))
    root = len(list((ROOT / "siamrpn_jax").glob("*.py")))
    lines = sum(len(path.read_text().splitlines()) for path in files)
    tests = sum(len(p.read_text().splitlines()) for p in (ROOT / "tests").rglob("*.py"))
    print(f"source: {lines:,} lines in {len(files)} files; tests: {tests:,} lines")
    print(f"files in the package's root: {root}")
    print(
        f"functions: {len(lengths):,}, median {statistics.median(lengths):g} lines, "
        f"90 % up to {lengths[int(0.9 * len(lengths))]}, longest {lengths[-1]}"
    )
    print(f"public names with a docstring: {documented_share(files):.1%}")
    for start in (frame_to_box, pair_to_gradient, results_to_eao):
        visited = visited_files(start())
        print(f"{start.__name__}: {len(visited)} files: {', '.join(visited)}")


if __name__ == "__main__":
    main()
