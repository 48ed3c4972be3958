"""Checks of a game: what `python -m ez_jax.doctor env=GAME` is made of.

`spaces` looks at what it declares, `play` at what random play returns, `repeat` at whether the same
seed gives the same game, and `rewards` at what its rewards mean for the settings; `checks`
has them all in order, each with its fix.
"""
