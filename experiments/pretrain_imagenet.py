"""Pretrains a backbone: ``python experiments/pretrain_imagenet.py --data DIR``."""

from siamrpn_jax.commands.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()
    from siamrpn_jax.commands.pretrain import main

    main()
