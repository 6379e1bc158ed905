"""Seeded damage to files: of disks, of cables, of editors, and of people."""

import random

TOKENS = (
    b"",
    b"nan",
    b"inf",
    b"-1",
    b"0",
    b"1e999",
    b"1e308",
    b"-1e308",
    b"9" * 40,
    b"1_0",
    b"0x10",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"[" * 2000,
    b"(" * 2000,
    b"<a>" * 300,
    b"&lol;",
    b"../../evil",
    b"/etc/passwd",
    b"\r",
    b"\n\n",
    b",",
    b";",
    b"\t",
    b"'",
    b'"',
    "１２".encode(),
)
"""What is put somewhere into a file, or in place of one of its numbers."""


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to three kinds of damage."""
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(_KINDS)(data, rng)
    return data


def _place(data: bytes, rng: random.Random) -> int:
    """Half of the time near the start, where headers are."""
    limit = min(len(data), 64) if rng.random() < 0.5 else len(data)
    return rng.randint(0, max(limit - 1, 0))


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32))):
        damaged[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _remove(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    return data[:start] + data[start + rng.choice((1, 2, 16, 300)) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    part = data[start : start + rng.choice((1, 8, 64, 500))]
    return data[:start] + part * rng.choice((2, 3, 20)) + data[start:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    return data[:start] + rng.choice(TOKENS) + data[start:]


def _replace_number(data: bytes, rng: random.Random) -> bytes:
    """One of the runs of digits becomes something else."""
    digits = [i for i, byte in enumerate(data[:20_000]) if 48 <= byte <= 57]
    if not digits:
        return _insert(data, rng)
    start = rng.choice(digits)
    end = start
    while end < len(data) and 48 <= data[end] <= 57:
        end += 1
    return data[:start] + rng.choice(TOKENS) + data[end:]


def _swap_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


_KINDS = (
    _flip,
    _cut,
    _remove,
    _repeat,
    _insert,
    _insert,
    _replace_number,
    _replace_number,
    _swap_lines,
)
