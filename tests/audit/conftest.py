"""Programs of audits are compiled once and run once: XLA need not optimize them."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quickly_compiled():
    # A module's programs are freed when it ends: no other meets these.
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
