"""Addresses as Label Studio writes them."""

from pathlib import Path

import pytest

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.labelling.label_studio import (
    count_frames,
    duration_problem,
    film_frame,
    find_media,
    media_of,
    whole_frame,
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


def test_a_task_of_two_films():
    one = {"id": 3, "title": "other.mp4", "video": "sub/gr%C3%BCn.mp4"}
    grün, mine = Path("films/sub/grün.mp4"), Path("films/my film.mp4")
    assert media_of(one, BY_NAME) == [grün]
    assert media_of(one | {"copy": "grün.mp4"}, BY_NAME) == [grün]
    assert media_of(one | {"title": "my film.mp4"}, BY_NAME) == [mine, grün]
    assert media_of({"title": "other.mp4"}, BY_NAME) == []


@pytest.mark.parametrize(
    ("frame", "count", "length", "expected"),
    [(1, 8, 8, 0), (8, 8, 8, 7), (1, 4, 8, 0), (3, 4, 8, 4), (16, 16, 8, 7)],
)
def test_frames_by_time(frame, count, length, expected):
    assert film_frame(frame, count=count, length=length) == expected


@pytest.mark.parametrize(
    ("frame", "count", "length"), [(0, 8, 8), (9, 8, 8), (0, 4, 8), (5, 4, 8)]
)
def test_frames_that_are_not_there(frame, count, length):
    with pytest.raises(InputError, match=f"frame {frame}, expected 1 to {count}"):
        film_frame(frame, count=count, length=length)


@pytest.mark.parametrize("frame", ["1", 1.5, True, None, float("nan"), float("inf")])
def test_frames_that_are_no_whole_numbers(frame):
    assert whole_frame(7.0) == 7
    with pytest.raises(InputError, match="expected a whole number"):
        whole_frame(frame)


@pytest.mark.parametrize("told", ["8", -3, 10**9, [8], float("nan"), True])
def test_counts_of_frames(told):
    assert count_frames(None, length=8) == count_frames(8, length=None) == 8
    assert count_frames(20, length=8) == 20
    with pytest.raises(InputError, match=r"framesCount is .*, expected 1 to 8000$"):
        count_frames(told, length=8)
    with pytest.raises(InputError, match="framesCount is None, expected 1 to"):
        count_frames(None, length=None)


@pytest.mark.parametrize(
    ("duration", "wrong"), [(10, False), (10.49, False), (10.6, True), (9.4, True)]
)
def test_durations(duration, wrong):
    """A film of 10 s; one of .4 s may be off by half."""
    assert bool(duration_problem(duration, "a.mp4", length=250, fps=25)) == wrong
    assert not duration_problem(0.59, "a.mp4", length=10, fps=25)


@pytest.mark.parametrize(
    ("duration", "length", "fps"),
    [(None, 250, 25), ("99", 250, 25), (0, 250, 25), (99, None, 25), (99, 250, None)],
)
def test_durations_that_tell_nothing(duration, length, fps):
    assert not duration_problem(duration, "a.mp4", length=length, fps=fps)
