"""Addresses as Label Studio writes them."""

from pathlib import Path

import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.labelling.label_studio import (
    duration_problem,
    film_frame,
    find_media,
)

FILES = [
    Path("films", name)
    for name in (
        "run1/clip.mp4",
        "run2/clip.mp4",
        "my film.mp4",
        "sub/grün.mp4",
        "a=b&c.mp4",
        "100%.mp4",
        "film[1].mp4",
    )
]
BY_NAME = {
    name: [file for file in FILES if file.name == name]
    for name in {file.name for file in FILES}
}


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("/data/local-files/?d=run2/clip.mp4", "run2/clip.mp4"),
        ("/data/local-files/?d=run1%2Fclip.mp4", "run1/clip.mp4"),
        (r"D:\films\run2\clip.mp4", "run2/clip.mp4"),
        ("s3://bucket/run1/clip.mp4", "run1/clip.mp4"),
        ("https://h/run2/clip.mp4?X-Amz-Algorithm=AWS4&X-Amz-Date=1", "run2/clip.mp4"),
        ("/data/upload/3/0123abcd-my%20film.mp4", "my film.mp4"),
        ("my film.mp4", "my film.mp4"),
        ("/data/local-files/?d=sub/gr%C3%BCn.mp4", "sub/grün.mp4"),
        ("a=b&c.mp4", "a=b&c.mp4"),
        ("100%.mp4", "100%.mp4"),
        ("film[1].mp4", "film[1].mp4"),
        ("http://[clip/film[1].mp4", "film[1].mp4"),
    ],
)
def test_media_are_found(address, file):
    assert find_media(address, BY_NAME) == Path("films", file)


@pytest.mark.parametrize("address", ["", "other.mp4", "a/", "/data/?d=other.mp4"])
def test_media_that_are_not_there(address):
    assert find_media(address, BY_NAME) is None


def test_two_films_of_one_name_are_refused():
    with pytest.raises(InputError, match=r"run1/clip.mp4 or .*run2/clip.mp4\?"):
        find_media("/data/upload/1/0123abcd-clip.mp4", BY_NAME)


@pytest.mark.parametrize(
    ("frame", "count", "length", "expected"),
    [(1, 8, 8, 0), (8, 8, 8, 7), (1, 4, 8, 0), (3, 4, 8, 4), (16, 16, 8, 7)],
)
def test_frames_by_time(frame, count, length, expected):
    assert film_frame(frame, count=count, length=length) == expected


@pytest.mark.parametrize(
    ("duration", "wrong"), [(10, False), (10.49, False), (10.6, True), (9.4, True)]
)
def test_durations(duration, wrong):
    """A film of 10 s; one of .4 s may be off by half."""
    assert bool(duration_problem(duration, "a.mp4", length=250, fps=25)) == wrong
    assert not duration_problem(0.59, "a.mp4", length=10, fps=25)
