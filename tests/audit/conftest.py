"""Programs of audits are compiled once and run once: XLA need not optimize them."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def quickly_compiled(cheaply_compiled):
    pass
