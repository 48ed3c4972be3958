"""Checks of a game: the parts of `python -m ez_jax.doctor env=GAME`.

`spaces` checks what it declares, `play` what random play returns, `repeat` whether the same seed
gives the same game, and `rewards` what its rewards mean for the settings; `checks` has them all in
order, each with its fix.
"""
