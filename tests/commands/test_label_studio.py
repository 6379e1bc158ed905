import socket

import pytest

from siamrpn_jax.commands import label_studio
from siamrpn_jax.common.errors import InputError


def test_a_port_that_cannot_be_had(tmp_path, capsys):
    """It is told in a line before anything is said to be there."""
    pytest.importorskip("uvicorn", reason="skipped: needs siamrpn-jax[labelstudio]")
    with pytest.raises(InputError, match="port is 70000, expected 0 to 65535"):
        label_studio.Config(tmp_path, port=70000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as caught:
            label_studio.main([str(tmp_path), "--port", str(port)])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert not out and f"cannot listen on port {port} of 127.0.0.1" in err
