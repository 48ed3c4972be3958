"""From run folders to figures, tables and a page: what `python -m ez_jax.report` is made of.

`collect` reads runs, `arms` groups them by game and settings, `curves`, `effects`, `aggregates` and
`simulations` measure with the intervals of `estimates`, and `figures`, `tables` and `page` show it.
"""
