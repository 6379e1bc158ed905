"""Draws the pictures of ``docs/``: ``python -m experiments.pictures``.

Every picture is made from generated scenes: what a command draws, by running it
(``outputs``, and in a browser ``pages``), or what explains a convention or an equation,
by the package's own functions (``diagrams``).
"""
