"""``siamrpn import``: weights of published trackers in, ours out, model cards.

Without ``--out`` and ``--to-torch`` it only prints what a file holds.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import InputError

if TYPE_CHECKING:  # --help must not wait for JAX
    from siamrpn_jax.tracking.state import Loaded
    from siamrpn_jax.weights import LoadedBackbone


@dataclasses.dataclass(frozen=True)
class Config:
    """Read weights of PyTorch trackers without PyTorch, write ours in their layouts.

    With FILE alone: print what it holds, with its model card. Layouts: dasiamrpn,
    dasiamrpn-otb, dasiamrpn-big, pysot-alexnetlegacy, pysot-alexnet (each also with
    -dwxcorr), siamrpn-pytorch, siamfc; backbones alone: alexnet-bn, torchvision,
    efficientnet-lite0. Of SiamFC the original file for MatConvNet (.mat) is read too.
    """

    file: tyro.conf.Positional[str]
    """PyTorch file (.pth, .model, …), .safetensors file, name of released weights, or
    a training run's folder."""
    out: Path | None = None
    """Write it as a .safetensors file, or into this folder as weights.safetensors."""
    to_torch: Path | None = None
    """Write it as a state_dict for PyTorch; needs --layout."""
    layout: str = "auto"
    """Names and conventions of the PyTorch file; auto finds out."""


def run(config: Config) -> "Loaded | LoadedBackbone":
    """Reads, prints what was found, and writes what was asked for.

    Returns:
        the weights.

    Raises:
        InputError: a file that cannot be read, or does not fit the layout.
        FileNotFoundError: no such file.
    """
    # Imported here: ``siamrpn import --help`` must not wait for JAX.
    from siamrpn_jax import weights
    from siamrpn_jax.weights import cards, torch_layouts

    if config.to_torch is not None and config.layout == "auto":
        raise InputError(
            f"--to-torch needs --layout, one of {', '.join(torch_layouts.LAYOUTS)}"
        )
    path = weights.find(config.file)
    if path.suffix != ".safetensors":
        layout = "auto" if config.to_torch else config.layout
        name, loaded = torch_layouts.import_torch(path, layout=layout)
        print(f"{path}: layout {name}, {torch_layouts.LAYOUTS[name].text}\n")
    else:
        loaded = weights.read_file(path)
    print(cards.show(loaded.card))
    if config.out is not None:
        _write(config.out, loaded)
    if config.to_torch is not None:
        torch_layouts.export_torch(
            config.to_torch, loaded.variables, layout=config.layout
        )
        print(f"\n{config.to_torch}: state_dict, layout {config.layout}")
    return loaded


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn import")))


def _write(out: Path, loaded: "Loaded | LoadedBackbone") -> None:
    from siamrpn_jax import weights

    path = out if out.suffix == ".safetensors" else out / weights.FILE_NAME
    kwargs: dict[str, Any] = dict(card=loaded.card)
    if isinstance(loaded, weights.LoadedBackbone):
        kwargs |= dict(config=loaded.config, input_config=loaded.input)
        weights.save_backbone(path, loaded.variables, **kwargs)
        print(f"\n{path}: backbone; siamrpn train --backbone {path}")
        return
    kwargs |= dict(model=loaded.model, tracker_config=loaded.tracker_config)
    weights.save_weights(path, loaded.variables, **kwargs)
    print(f"\n{path}: siamrpn eval --weights {path} --sequences DIR")
    for name in _recipes(loaded):
        print(f"fine-tune: siamrpn train {name} --init {path}")


def _recipes(loaded: "Loaded") -> list[str]:
    """Presets that train this network."""
    from siamrpn_jax.presets import PRESETS

    config = loaded.model.config
    return [name for name, make in PRESETS.items() if make().model == config]
