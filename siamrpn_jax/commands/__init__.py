"""Commands of the ``siamrpn`` program."""
