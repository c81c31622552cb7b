"""Run notebooks from clean and keep the numbers behind every figure.

    python notebooks/execute.py [notebooks/1-from-sgd-to-adabound.ipynb ...]

runs the given notebooks, or all, in fresh kernels and writes their outputs back.
tests/docs/test_notebooks.py runs them in the same way and asks `differences` whether
what is committed still is what the code gives.

Pixels change with every version of a font or of Matplotlib. So a formatter in the
kernel, which no notebook sees, notes for each figure what it shows: its words, its
limits, and where its lines, patches, collections and images lie. The note travels as
metadata of the very output that holds the picture, so that a picture without its note,
as an editor saves it, counts as a difference. Positions are fractions of the axes and
colours fractions of the colour scale, so one tolerance serves every unit and scale.
"""

import base64
import copy
import importlib.metadata
import io
import json
import math
import os
import re
import reprlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT = 120.0  # seconds a notebook may run
# Of the axes' width or height, or of a printed number: JAX differs in the last digits
# between processors and versions, and a few hundred steps make them grow.
TOLERANCE = 0.01
KEY = "figure"  # of the output metadata in which the note travels
POINTS = 20  # that are noted of a longer line


def execute(notebook: Any) -> Any:
    """The notebook run from clean in an empty folder; raises what a cell raises."""
    fresh = copy.deepcopy(notebook)
    for cell in code_cells(fresh):
        cell.outputs, cell.execution_count = [], None
    fresh.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
    )
    metadata = copy.deepcopy(fresh.metadata)
    with tempfile.TemporaryDirectory() as folder:
        startup = Path(folder, "ipython", "profile_default", "startup")
        startup.mkdir(parents=True)
        Path(startup, "figures.py").write_text(
            f"import runpy; runpy.run_path({__file__!r})['note_figures']()\n"
        )
        work = Path(folder, "work")
        work.mkdir()
        end = time.monotonic() + LIMIT
        nbclient.NotebookClient(
            fresh,
            timeout_func=lambda cell: max(1, math.ceil(end - time.monotonic())),
            resources={"metadata": {"path": str(work)}},
            shutdown_kernel="immediate",  # it has nothing to put in order
            record_timing=False,
            coalesce_streams=True,
        ).execute(
            env=os.environ
            | {
                "IPYTHONDIR": str(startup.parent.parent),
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                # This checkout, whatever else is installed.
                "PYTHONPATH": str(ROOT),
            }
        )
    fresh.metadata = metadata  # nbclient adds the Python version
    return fresh


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shrink_pictures(notebook: Any) -> None:
    """Redraw every PNG in 256 colours: a third of the size, the same to the eye."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                picture = Image.open(
                    io.BytesIO(base64.b64decode(output.data["image/png"]))
                )
                small = io.BytesIO()
                picture.convert("RGB").quantize(256).save(small, "PNG", optimize=True)
                output.data["image/png"] = base64.b64encode(small.getvalue()).decode()


# In the kernel.


def note_figures() -> None:
    """From now on, add `figure_note` to the metadata of each figure displayed."""
    from IPython import get_ipython

    formatter = get_ipython().display_formatter
    plain = formatter.format

    def format_and_note(obj: Any, *args: Any, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = plain(obj, *args, **kwargs)
        figure = sys.modules.get("matplotlib.figure")
        if figure and isinstance(obj, figure.Figure) and "image/png" in data:
            metadata = metadata | {KEY: json.dumps(figure_note(obj))}
        return data, metadata

    formatter.format = format_and_note


def figure_note(figure: Any) -> dict[str, Any]:
    return {
        "texts": [text.get_text() for text in figure.texts],
        "axes": [_axes_note(axes) for axes in figure.axes],
    }


def _axes_note(axes: Any) -> dict[str, Any]:
    from matplotlib.collections import PathCollection
    from matplotlib.ticker import FixedFormatter

    def on_page(transform: Any, points: Any) -> dict[str, Any]:
        """Data → display → fraction of the axes."""
        points = np.ma.filled(np.ma.asarray(points, float), np.nan).reshape(-1, 2)
        return _sample(axes.transAxes.inverted().transform(transform.transform(points)))

    def collection(artist: Any) -> dict[str, Any]:
        if hasattr(artist, "levels"):  # contours: how many points is an accident
            return {"levels": [_digits(level) for level in artist.levels]}
        if isinstance(artist, PathCollection):  # of `scatter`: the paths are markers
            where = on_page(artist.get_offset_transform(), artist.get_offsets())
        else:
            paths = [path.vertices for path in artist.get_paths()]
            where = on_page(artist.get_transform(), np.concatenate(paths or [[]]))
        return where | _colours(artist)

    legend = axes.get_legend()
    limits = axes.transScale.transform(
        np.transpose([axes.get_xlim(), axes.get_ylim()]).astype(float)
    )
    return {
        "texts": [
            *(axes.get_title(loc=loc) for loc in ("left", "center", "right")),
            axes.get_xlabel(),
            axes.get_ylabel(),
            *(text.get_text() for text in axes.texts),
            *(text.get_text() for text in (legend.get_texts() if legend else [])),
            *(
                str(label)
                for axis in (axes.xaxis, axes.yaxis)
                if isinstance(axis.get_major_formatter(), FixedFormatter)
                for label in axis.get_major_formatter().seq
            ),
        ],
        "limits": [[_digits(value) for value in pair] for pair in limits.T],
        "lines": [
            on_page(line.get_transform(), line.get_xydata()) for line in axes.lines
        ],
        "patches": [
            on_page(patch.get_transform(), patch.get_path().vertices)
            for patch in axes.patches
        ],
        "collections": [collection(artist) for artist in axes.collections],
        "images": [_colours(image) for image in axes.images],
    }


def _colours(artist: Any) -> dict[str, Any]:
    array = artist.get_array()
    if array is None:
        return {}
    if array.ndim == 3:  # an RGB picture
        return {"colours": _sample(np.reshape(array, (-1, array.shape[-1])) / 255.0)}
    scaled = np.ma.filled(np.ma.asarray(artist.norm(array), float), np.nan)
    return {
        "scale": [_digits(value) for value in artist.get_clim()],
        "colours": _sample(scaled.reshape(-1, 1)),
    }


def _sample(points: np.ndarray) -> dict[str, Any]:
    """How many, the mean, and up to POINTS of them, first and last included."""
    # What runs off the page is off the page, by however much.
    points = np.clip(points, -1.0, 2.0)
    some = np.unique(np.linspace(0, len(points) - 1, POINTS).astype(int))
    finite = points[np.isfinite(points).all(axis=1)]
    return {
        "count": len(points),
        "mean": [round(float(value), 3) for value in finite.mean(axis=0)]
        if len(finite)
        else [],
        "points": [
            [round(float(v), 3) if math.isfinite(v) else None for v in point]
            for point in (points[some] if len(points) else [])
        ],
    }


def _digits(value: Any) -> float:
    return float(f"{float(value):.4g}")


# In the writer and in the test.


def differences(committed: Any, executed: Any) -> Iterator[str]:
    """Where the outputs of the two differ by more than TOLERANCE, in words."""
    pairs = zip(code_cells(committed), code_cells(executed), strict=True)
    for number, (old, new) in enumerate(pairs, 1):
        old, new = _shown(old), _shown(new)
        where = f"code cell {number}"
        if [kind for kind, _ in old] != [kind for kind, _ in new]:
            yield (
                f"{where}: committed are {[kind for kind, _ in old]}, the code gives "
                f"{[kind for kind, _ in new]}"
            )
            continue
        for (kind, before), (_, after) in zip(old, new, strict=True):
            if kind == "figure":
                yield from _different(before, after, f"{where}, figure")
            elif not same_text(before, after):
                yield f"{where}: committed is {before!r}, the code gives {after!r}"


def _shown(cell: Any) -> list[tuple[str, Any]]:
    """What the cell's outputs say; warnings, which depend on the machine, are not."""
    shown: list[tuple[str, Any]] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            if output.name == "stdout":
                shown.append(("text", output.text))
        elif KEY in output.get("metadata", {}):
            shown.append(("figure", json.loads(output.metadata[KEY])))
        elif "image/png" in output.get("data", {}):
            shown.append(("picture without its numbers", None))
        else:
            shown.append(("text", output.get("data", {}).get("text/plain", "")))
    return shown


def _different(old: Any, new: Any, where: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for name in old:
            if name == "limits":
                for axis, *pair in zip("xy", old[name], new[name], strict=True):
                    yield from _different_limits(*pair, f"{where}, {axis} limits")
            elif name in ("scale", "levels"):
                if not np.allclose(old[name], new[name], rtol=TOLERANCE, atol=0.0):
                    yield f"{where}, {name}: {old[name]} → {new[name]}"
            else:
                yield from _different(old[name], new[name], f"{where}, {name}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True), 1):
            yield from _different(*pair, f"{where} {number}")
    elif isinstance(old, str) and isinstance(new, str):
        if not same_text(old, new):
            yield f"{where}: {old!r} → {new!r}"
    elif isinstance(old, float) and isinstance(new, float):
        if abs(old - new) > TOLERANCE:
            yield f"{where}: {old} → {new} of the axes"
    elif old != new:
        yield f"{where}: {reprlib.repr(old)} → {reprlib.repr(new)}"


def _different_limits(old: list[float], new: list[float], where: str) -> Iterator[str]:
    if np.abs(np.subtract(old, new)).max() > TOLERANCE * abs(old[1] - old[0]):
        yield f"{where}: {old} → {new}"


_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


def same_text(old: str, new: str) -> bool:
    """Equal but for numbers, which may differ by TOLERANCE; print three digits."""
    numbers = [
        [float(number.replace(",", "")) for number in _NUMBER.findall(text)]
        for text in (old, new)
    ]
    return _NUMBER.sub("0", old) == _NUMBER.sub("0", new) and np.allclose(
        *numbers, rtol=TOLERANCE, atol=0.0
    )


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        start = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        executed = execute(notebook)
        shrink_pictures(executed)
        nbformat.write(executed, path)
        versions = ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("jax", "optax", "matplotlib")
        )
        print(f"{path.name}: {time.monotonic() - start:.0f} s with {versions}")
