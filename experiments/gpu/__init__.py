"""First light: what an accelerator does with ez_jax, measured in a quarter of an hour."""
