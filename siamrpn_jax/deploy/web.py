"""The page that follows objects in a browser, and the packages that it runs on.

The page is in ``page/``; ONNX Runtime for browsers and the reader of film files come
from npm, in these versions, and are written beside it: a page asks no other address.
"""

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from siamrpn_jax.common.errors import InputError

PACKAGES = {
    "onnxruntime-web": {
        "version": "1.30.0",
        "licence": "MIT",
        "source": "https://github.com/microsoft/onnxruntime",
    },
    "mediabunny": {
        "version": "1.61.0",
        "licence": "MPL-2.0",
        "source": "https://github.com/Vanilagy/mediabunny",
    },
}
"""Packages of npm, by name."""

_FILES = {
    "onnxruntime-web": (
        "dist/ort.wasm.min.mjs",
        "dist/ort-wasm-simd-threaded.mjs",
        "dist/ort-wasm-simd-threaded.wasm",
    ),
    "mediabunny": ("dist/bundles/mediabunny.min.mjs", "LICENSE"),
}
"""What the page loads of each, and licences that must go with it."""


def read_page() -> dict[str, bytes]:
    """The files of the page by name."""
    paths = sorted(Path(__file__).with_name("page").iterdir())
    return {path.name: path.read_bytes() for path in paths}


def read_packages(node_modules: Path | None) -> dict[str, bytes]:
    """Files of the packages by name, such as ``mediabunny/mediabunny.min.mjs``.

    Args:
        node_modules: a folder where npm has installed them; None: npm fetches them.

    Raises:
        InputError: no npm, or not these packages, or not in these versions.
    """
    if node_modules is not None:
        return _read_packages(node_modules)
    with tempfile.TemporaryDirectory(prefix="siamrpn-web-") as place:
        _fetch_packages(Path(place))
        return _read_packages(Path(place))


def _read_packages(folder: Path) -> dict[str, bytes]:
    found = {}
    for name, about in PACKAGES.items():
        package = folder / name
        try:
            description = json.loads((package / "package.json").read_bytes())
            for path in _FILES[name]:
                content = (package / path).read_bytes()
                found[f"{name}/{Path(path).name}"] = content
        except (OSError, ValueError) as error:
            raise InputError(
                f"{package}: not npm's package {name} ({error}); "
                f"npm install {_wanted(name, about)}"
            ) from error
        if description.get("version") != about["version"]:
            raise InputError(
                f"{package}: version {description.get('version')}, expected "
                f"{about['version']}: npm install {_wanted(name, about)}"
            )
    return found


def _fetch_packages(folder: Path) -> None:
    """Has npm fetch the packages, without what they depend on elsewhere."""
    npm = shutil.which("npm")
    wanted = [_wanted(name, about) for name, about in PACKAGES.items()]
    if npm is None:
        raise InputError(
            "no npm to fetch the page's packages: install Node.js, or run npm install "
            f"{' '.join(wanted)} elsewhere and give its folder to --node-modules"
        )
    command = [npm, "pack", "--silent", "--pack-destination", str(folder), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise InputError(f"npm cannot fetch {' '.join(wanted)} ({last})")
    for name, about in PACKAGES.items():
        with tarfile.open(folder / f"{name}-{about['version']}.tgz") as archive:
            archive.extractall(folder, filter="data")
        (folder / "package").rename(folder / name)


def _wanted(name: str, about: Mapping[str, str]) -> str:
    return f"{name}@{about['version']}"
