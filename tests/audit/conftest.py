"""Programs of audits are compiled once and run once: XLA need not optimize them."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def quickly_compiled():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
