"""What every test has: memory given back, and profiles.

`pytest --hypothesis-profile=long` looks further.
"""

import contextlib
import ctypes
import functools
import gc
import os
import pathlib
import tempfile
import time
import zlib

import compiling
import hypothesis
import jax
import pytest
from jax._src import compilation_cache, compiler

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
    "core/test_wrong_input.py",
    "parity/test_parity_golden.py",
    "parity/test_same_names.py",
]
TESTS = pathlib.Path(__file__).parent
assert all((TESTS / name).is_file() for name in QUICK), QUICK


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: of the files in tests/conftest.py")
    keep_files_in_memory()
    # Without pytest's cache (`-p no:cacheprovider`) there is none of programs.
    if config.pluginmanager.hasplugin("cacheprovider"):
        keep_programs(pathlib.Path(config.cache.mkdir("programs")))


def keep_files_in_memory(memory="/dev/shm", least=2 << 30):
    """Thousands of small ones are written, renamed and deleted; where there is room."""
    if "TMPDIR" in os.environ or not os.path.isdir(memory):
        return
    found = os.statvfs(memory)
    # Some are libraries, which are executed.
    if found.f_bavail * found.f_frsize > least and not found.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"], tempfile.tempdir = memory, None


def keep_programs(directory, days=3):
    """A program is compiled once, for all processes of a run and for some days' runs.

    What it is compiled from is its name there; `pytest --cache-clear` deletes all.
    """
    for file in directory.iterdir():
        # Another worker may be about the same.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > days * 86_400:
                file.unlink()
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # What is a sixth larger is written in a third of the time.
    if compilation_cache.compress_executable(b"")[:1] == zlib.compress(b"")[:1]:
        quickly = functools.partial(zlib.compress, level=1)
        compilation_cache.compress_executable = quickly
    # Those that tests start read it here.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@functools.cache
def is_quick(path):
    return path.is_relative_to(TESTS) and str(path.relative_to(TESTS)) in QUICK


def pytest_ignore_collect(collection_path, config):
    """To import the other files takes as long as to run the quick ones."""
    is_other = collection_path.suffix == ".py" and not is_quick(collection_path)
    return True if is_other and config.option.markexpr == "quick" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Files make arrays where they are imported, in every worker."""
    with compiling.in_one_context():
        return (yield)


def pytest_collection_modifyitems(items):
    for item in items:
        if is_quick(item.path):
            item.add_marker("quick")


def pytest_collection_finish():
    """What is imported by now stays: no collection need look at it again.

    What JAX traces is thousands of objects that last no longer than a test.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def _one_device():
    """The first to use JAX settles its devices; a command line makes one a core."""
    jax.devices()


@pytest.fixture(scope="session", autouse=True)
def _no_power_failure():
    """What one takes is tested nowhere, and to wait for the disk takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def _programs():
    """Free the programs of a module; JAX would keep them for all the run."""
    with compiling.in_one_context():
        yield
    jax.clear_caches()
    gc.collect()
    # What is left stays, and would be looked at again after every module.
    gc.freeze()
    # glibc keeps what is free, which is most of a worker's memory, unless it is asked.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


@pytest.fixture(scope="module")
def cheaply_compiled():
    """Every program of a module, single operations too, and those of its processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", compiling.flags())
        patch.setattr(compiler, "get_compile_options", compiling.options)
        yield


@pytest.fixture
def undrawn(unreported, monkeypatch):
    """For commands that are not about pictures and pages."""
    monkeypatch.setattr("optjax._cli.experiment._pictures", lambda *_: {})


@pytest.fixture
def unreported(monkeypatch):
    """For commands that are not about pages."""
    monkeypatch.setattr(
        "optjax.sweep.SweepResult.report", lambda result, path: path.touch()
    )
