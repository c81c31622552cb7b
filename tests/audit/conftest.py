"""Programs of audits are compiled once and run once: XLA need not optimize them."""

import jax
import pytest
from compiling import jit


@pytest.fixture(autouse=True, scope="module")
def quickly_compiled():
    # A module's programs are freed when it ends: no other meets these.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", jit)
        yield
