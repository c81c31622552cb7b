"""Pages that live outside docs/: the notebooks and what the benchmarks gave.

They are copied in before a build, under names that git ignores. Their links, and those
of all other pages, are written for GitHub; on the site a link to a page of the
repository leads to its place here, and one to any other file to GitHub.
"""

import base64
import json
import os
import re
import shutil
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
COPIES = {"notebooks/*.ipynb": "tutorials", "benchmarks/*.md": "benchmarks"}


def copies():
    """Path in the repository → path in docs/, both relative."""
    return {
        path.relative_to(ROOT): Path(folder, path.name)
        for pattern, folder in COPIES.items()
        for path in sorted(ROOT.glob(pattern))
    }


def copy(app):
    for folder in (*COPIES.values(), "thumbnails"):
        shutil.rmtree(DOCS / folder, ignore_errors=True)
        (DOCS / folder).mkdir()
    for source, target in copies().items():
        shutil.copyfile(ROOT / source, DOCS / target)
        if source.suffix == ".ipynb":
            (DOCS / "thumbnails" / f"{source.stem}.png").write_bytes(thumbnail(source))


def thumbnail(path):
    """The picture of the notebook that says most by its size."""
    cells = json.loads((ROOT / path).read_text())["cells"]
    shown = [output.get("data", {}) for c in cells for output in c.get("outputs", [])]
    pictures = [data["image/png"] for data in shown if "image/png" in data]
    return base64.b64decode(max(pictures, key=len))


def relink(app, docname, text):
    """Sphinx's `source-read`."""
    here = Path(app.env.doc2path(docname)).relative_to(DOCS)
    origin = {target: source for source, target in copies().items()}
    folder = origin.get(here, Path("docs", here)).parent
    blob = f"{app.config.html_context['repository']}/blob/main/"

    def replace(found):
        target, hash_, anchor = found[1].partition("#")
        if target.startswith(blob):
            path = Path(target.removeprefix(blob))
        elif target and ":" not in target:
            path = Path(os.path.normpath(folder / target))
        else:
            return found[0]
        if not (ROOT / path).exists():
            return found[0]
        inside = copies().get(path)
        if path.parts[0] == "docs":
            inside = path.relative_to("docs")
        if inside is None or inside.suffix not in (".md", ".ipynb", ".png", ".svg"):
            return f"]({blob}{path}{hash_}{anchor})"
        return f"]({os.path.relpath(inside, here.parent)}{hash_}{anchor})"

    text[0] = re.sub(r"\]\(([^()\s]+)\)", replace, text[0])


class Gallery(Directive):
    """A card for each notebook: its picture, its title and its first sentences."""

    def run(self):
        lines = ["::::{grid} 1 2 2 3", ":gutter: 3", ""]
        for source, target in copies().items():
            if source.suffix != ".ipynb":
                continue
            cells = json.loads((ROOT / source).read_text())["cells"]
            text = "\n\n".join(
                "".join(c["source"]) for c in cells if c["cell_type"] == "markdown"
            )
            title, *paragraphs = text.split("\n\n")
            title = title.removeprefix("# ")
            said = next(p for p in paragraphs if re.match(r"[A-Z]", p))
            said = re.match(r"(?:.{60,}?|.*)[.?!](?= |$)", said.replace("\n", " "))[0]
            lines += [
                f":::{{grid-item-card}} {title}",
                f":link: /{target.with_suffix('')}",
                ":link-type: doc",
                f":img-top: /thumbnails/{source.stem}.png",
                f":img-alt: A figure of the notebook “{title}”",
                "",
                said,
                ":::",
                "",
            ]
        lines.append("::::")
        container = nodes.container()
        self.state.nested_parse(StringList(lines, source="gallery"), 0, container)
        return container.children


def setup(app):
    app.connect("builder-inited", copy)
    app.connect("source-read", relink)
    app.add_directive("gallery", Gallery)
    return {"parallel_read_safe": True}
