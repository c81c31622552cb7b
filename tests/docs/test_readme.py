"""The Python in the README and in the docs runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = {
    f"{page}, block {number}": block
    for page in (
        "README.md",
        "docs/sweeps.md",
        "docs/monitoring.md",
        "docs/audit.md",
        "docs/sharding.md",
        "docs/extending.md",
    )
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    )
}


def test_there_are_blocks_to_run():
    assert len(BLOCKS) >= 12


@pytest.mark.parametrize("name", BLOCKS)
def test_block_runs(name):
    exec(compile(BLOCKS[name], name, "exec"), {})
