import subprocess
import sys

import pytest

from siamrpn_jax.commands.errors import run_or_exit
from siamrpn_jax.common.errors import InputError, MissingExtraError


class BoxError(InputError):
    pass


def fail(error):
    def run():
        raise error

    run_or_exit(run)


@pytest.mark.parametrize(
    "error",
    [
        InputError("x is 3, expected 4"),
        BoxError("box [1, 2]: expected four numbers"),
        FileNotFoundError(2, "No such file or directory", "film.mp4"),
        OSError("cannot write out.json: disk full"),
        MissingExtraError("av is not installed: pip install 'siamrpn-jax[video]'"),
    ],
)
def test_what_a_user_can_mend_is_one_line(capsys, error):
    with pytest.raises(SystemExit) as caught:
        fail(error)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", f"error: {error}\n")
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "error", [ValueError("shapes"), ImportError("libGL.so.1"), KeyError("loss")]
)
def test_faults_of_the_program_keep_their_traceback(capsys, error):
    with pytest.raises(type(error)) as caught:
        fail(error)
    assert caught.value is error
    assert capsys.readouterr().err == ""


def test_ctrl_c(capsys):
    with pytest.raises(SystemExit) as caught:
        fail(KeyboardInterrupt())
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_went_away(buffered):
    flag = [] if buffered else ["-u"]
    code = "import sys; from siamrpn_jax.commands.errors import run_or_exit as run; "
    code += "sys.stdin.read(1); run(lambda: print('x' * 100))"
    child = subprocess.Popen(
        [sys.executable, *flag, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin and child.stdout and child.stderr
    child.stdout.close()
    child.stdin.write(b"go")
    child.stdin.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait() == 128 + 13


def test_success_returns():
    done = []
    run_or_exit(lambda: done.append(1))
    assert done == [1]
