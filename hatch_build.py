"""Compile the fused step of the CPU when optjax is installed.

`pip install` runs the hook below. In a checkout, where an editable install does not
compile again after an edit of `step.cc`, do it by hand, with the Python that has JAX:

    python hatch_build.py

Without a C++ compiler, or where it fails, the package installs all the same, and
optimizers run as JAX compiles them.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # Run by hand.
    BuildHookInterface = object

SOURCE = Path("optjax", "fused", "step.cc")
LIBRARY = SOURCE.with_name("libstep.so")

# The last two let loops with roots and comparisons be vectorised; neither changes what
# becomes of an infinity or a NaN.
FLAGS = [
    "-O3",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fno-math-errno",
    "-fno-trapping-math",
]


def compiler() -> list[str]:
    """The C++ compiler's command: $CXX, or the first one found; empty if none."""
    if "CXX" in os.environ:
        return shlex.split(os.environ["CXX"])
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    return []


def headers() -> Path:
    """The XLA headers that come with jaxlib, found without importing it."""
    spec = importlib.util.find_spec("jaxlib")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("jaxlib, which has the headers, is not installed")
    return Path(spec.origin).parent / "include"


def build(root: Path) -> Path | None:
    """Compile `step.cc`; the library, or None and one line that says why not."""
    library = root / LIBRARY
    try:
        command = compiler()
        if not command:
            raise FileNotFoundError(
                "no C++ compiler: set CXX, or install g++ or clang++"
            )
        # Written apart and renamed: a process may be running the present one.
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            built = Path(folder, library.name)
            include = ["-isystem", str(headers())]
            subprocess.run(
                [*command, *FLAGS, *include, str(root / SOURCE), "-o", str(built)],
                check=True,
                capture_output=True,
                text=True,
            )
            built.replace(library)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        reason = detail[0] if detail else repr(error)
        print(f"optjax: no fused CPU step: {reason}", file=sys.stderr)
        return None
    return library


class FusedStep(BuildHookInterface):
    """Put the compiled step into the wheel, and the wheel's platform into its name."""

    def dependencies(self) -> list[str]:
        """JAX's headers, where there is a compiler to read them."""
        return ["jaxlib>=0.10"] if compiler() else []

    def initialize(self, version: str, build_data: dict) -> None:
        """Build, for a wheel and for an editable install alike."""
        if build(Path(self.root)) is None:
            return
        build_data["artifacts"].append(f"/{LIBRARY.as_posix()}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


if __name__ == "__main__":
    sys.exit(build(Path(__file__).parent) is None)
