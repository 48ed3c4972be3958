"""Figures, tables and a page from run folders: the parts of `python -m ez_jax.report`.

`collect` reads runs, `arms` groups them by game and settings, `curves`, `effects`, `aggregates` and
`simulations` measure with the intervals of `estimates`, and `figures`, `tables` and `page` show it.
"""
