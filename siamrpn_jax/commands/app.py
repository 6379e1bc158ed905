"""``siamrpn app``: a page to label films, on this machine."""

import dataclasses
import webbrowser
from pathlib import Path

import tyro

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import check_range, require
from siamrpn_jax.common.released import DEFAULT_WEIGHTS


@dataclasses.dataclass(frozen=True)
class Config:
    """Label films on a page in the browser: draw boxes, track, correct, export.

    Everything is saved as it is made, to NAME.session.json beside the film, and opened
    again with it. Ctrl-C ends the server.
    """

    source: tyro.conf.Positional[Path] = Path(".")
    """A film, or a folder: its films, its folders of images, and its own images are
    offered on the page."""
    weights: str = DEFAULT_WEIGHTS
    """Name of released weights, a .safetensors file, or a training run's folder."""
    out: Path | None = None
    """Folder for sessions, and for exports in its subfolder labels; by default both go
    beside the film."""
    host: str = "127.0.0.1"
    """Name or address to listen on. Others than this machine's own, such as 0.0.0.0,
    let other machines in: the address that is printed then holds a secret, which goes
    over the network unencrypted."""
    port: int = 8730
    """Port to listen on; 0 takes one that is free."""
    browser: bool = False
    """Also open the page in this machine's browser."""

    def __post_init__(self) -> None:
        """Checks the port."""
        check_range(self, 0, 65535, "port")


def run(config: Config) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        InputError: nothing to label, unusable weights, or the port is taken.
        MissingExtraError: an optional package is not installed.
    """
    for module in ("starlette", "uvicorn", "websockets"):
        require(module, extra="app")

    # Imported here: ``siamrpn app --help`` must not wait for JAX.
    from siamrpn_jax.app.films import list_films

    films = list_films(config.source, out=config.out)

    from siamrpn_jax.api import load
    from siamrpn_jax.app.opened import Desk
    from siamrpn_jax.app.server import serve

    def ready(address: str) -> None:
        print(f"{len(films)} to label: {address}\nCtrl-C ends.", flush=True)
        if config.browser:
            webbrowser.open(address)

    desk = Desk(films, load(config.weights))
    serve(desk, host=config.host, port=config.port, ready=ready)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn app")))
