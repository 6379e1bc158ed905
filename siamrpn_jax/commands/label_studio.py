"""``siamrpn label-studio``: a machine learning backend for Label Studio."""

import contextlib
import dataclasses
from pathlib import Path

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import check_range, require
from siamrpn_jax.common.released import DEFAULT_WEIGHTS


@dataclasses.dataclass(frozen=True)
class Config:
    """Follow the video rectangles that are drawn in Label Studio.

    In Label Studio: Settings, Model, connect http://localhost:9090, with interactive
    preannotations. Needs siamrpn-jax[labelstudio], and no GPU.
    """

    films: tyro.conf.Positional[Path]
    """Folder with the films, at any depth; tasks are matched by the names of files."""
    weights: str = DEFAULT_WEIGHTS
    """Name of released weights, a .safetensors file, or a training run's folder."""
    host: str = "127.0.0.1"
    """Address to listen on. There is no password: keep it to this machine, or to a
    network that you trust."""
    port: int = 9090
    """Port to listen on; 0 takes one that is free."""

    def __post_init__(self) -> None:
        """Checks the port."""
        check_range(self, 0, 65535, "port")


def run(config: Config) -> None:
    """Serves until it is interrupted.

    Raises:
        InputError: no such folder, unusable weights, or the port is taken.
        MissingExtraError: Starlette or uvicorn are not installed.
    """
    uvicorn = require("uvicorn", extra="labelstudio")
    # Imported here: ``siamrpn label-studio --help`` must not wait for JAX.
    from siamrpn_jax.adapters.label_studio import make_app
    from siamrpn_jax.api import load
    from siamrpn_jax.app.server import listen

    app = make_app(config.films, tracker=load(config.weights))
    with contextlib.closing(listen(config.host, config.port)) as listening:
        port = listening.getsockname()[1]
        address = f"http://{config.host}:{port}"
        print(f"Label Studio's model: {address}, Ctrl-C ends.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
            server.run(sockets=[listening])


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn label-studio")))
