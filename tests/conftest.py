"""Settings of all tests."""

import jax

# On a GPU, float32 products are rounded to ten bits otherwise.
jax.config.update("jax_default_matmul_precision", "highest")
