"""Weights of a tiny network, in a file."""

import pytest

from exports import write_tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_tiny_weights(path)
    return path
