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
import sysconfig
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


def headers() -> Path | None:
    """The XLA headers that come with jaxlib, found without importing it.

    Those of the environment that optjax goes to come first, since XLA takes no library
    compiled for a newer one: in an isolated build pip hides its packages, not its path.
    """
    spec = importlib.util.find_spec("jaxlib")
    packages = [Path(sysconfig.get_path("platlib"), "jaxlib")]
    if spec is not None and spec.origin is not None:
        packages.append(Path(spec.origin).parent)
    found = [
        p / "include" for p in packages if (p / "include" / "xla" / "ffi").is_dir()
    ]
    return found[0] if found else None


def build(source: Path, library: Path) -> bool:
    """Compile `source`; where that fails, say so in one line and leave no library."""
    try:
        command, include = compiler(), headers()
        if not command:
            raise FileNotFoundError("no C++ compiler: install one or set CXX")
        if include is None:
            raise FileNotFoundError("no jaxlib, which has the headers")
        # Written apart and renamed: a process may be running the present one.
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            built = Path(folder, library.name)
            arguments = ["-isystem", str(include), str(source), "-o", str(built)]
            subprocess.run(
                [*command, *FLAGS, *arguments],
                check=True,
                capture_output=True,
                text=True,
            )
            built.replace(library)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[0]
        print(f"optjax: no compiled CPU step: {reason}", file=sys.stderr)
        library.unlink(missing_ok=True)
        return False
    return True


class CompiledStep(BuildHookInterface):
    """Put the compiled step into the wheel, and the wheel's platform into its name."""

    def dependencies(self) -> list[str]:
        """What has the headers, if there is a compiler but no JAX yet."""
        return ["jaxlib>=0.10"] if compiler() and headers() is None else []

    def initialize(self, version: str, build_data: dict) -> None:
        """Build beside the source for an editable install, else into the wheel."""
        root = Path(self.root)
        if version == "editable":
            build(root / SOURCE, root / LIBRARY)
            return
        self.folder = tempfile.TemporaryDirectory()
        library = Path(self.folder.name, LIBRARY.name)
        if build(root / SOURCE, library):
            build_data["force_include"][str(library)] = str(LIBRARY)
            build_data["pure_python"] = False
            # For every Python: XLA loads the library, which knows nothing of it.
            system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{system}"


if __name__ == "__main__":
    root = Path(__file__).parent
    sys.exit(not build(root / SOURCE, root / LIBRARY))
