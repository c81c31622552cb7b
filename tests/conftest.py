"""What every test has: programs compiled once a run, memory given back, profiles.

`pytest --hypothesis-profile=long` looks further.
"""

import gc
import os
import pathlib
import tempfile

import hypothesis
import pytest

# The same examples at every run, few enough for every day.
hypothesis.settings.register_profile(
    "short",
    max_examples=6,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "long",
    hypothesis.settings.get_profile("short"),
    max_examples=500,
    derandomize=False,
)
hypothesis.settings.load_profile("short")


# What `pytest -m quick` runs: the equation and its arguments, in seconds.
QUICK = [
    "core/test_bound.py",
    "core/test_extend.py",
    "core/test_form.py",
    "core/test_hyperparameters.py",
    "core/test_inputs.py",
    "core/test_wrong_input.py",
    "parity/test_parity_golden.py",
    "parity/test_same_names.py",
]
TESTS = pathlib.Path(__file__).parent
assert all((TESTS / name).is_file() for name in QUICK), QUICK


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: of the files in tests/conftest.py")
    if hasattr(config, "workerinput"):
        return
    # What XLA has compiled once in a run, no process of the run compiles again. JAX
    # reads these when it is imported.
    folder = tempfile.TemporaryDirectory(prefix="optjax-programs-")
    config.add_cleanup(folder.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def is_quick(path):
    return path.is_relative_to(TESTS) and str(path.relative_to(TESTS)) in QUICK


def pytest_ignore_collect(collection_path, config):
    """To import the other files takes as long as to run the quick ones."""
    is_other = collection_path.suffix == ".py" and not is_quick(collection_path)
    return True if is_other and config.option.markexpr == "quick" else None


def pytest_collection_modifyitems(items):
    for item in items:
        if is_quick(item.path):
            item.add_marker("quick")


@pytest.fixture(scope="module", autouse=True)
def _programs():
    """Free the programs of a module; JAX would keep them for all the run."""
    yield
    # Not before the variables above are set.
    import jax

    jax.clear_caches()
    gc.collect()
