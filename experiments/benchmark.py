"""Measures speed: ``python experiments/benchmark.py SECTION [OPTIONS]``."""

from siamrpn_jax.commands.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()
    from experiments.benchmarks.command import main

    main()
