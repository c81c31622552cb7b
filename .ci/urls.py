"""The project's addresses are those of pyproject.toml, in every file.

    python .ci/urls.py                  # names each place that has another
    python .ci/urls.py OWNER/REPOSITORY # writes that into pyproject.toml and all files

What changes is the repository on GitHub, in links, badges, install cells of notebooks,
CITATION.cff and workflows, and the site on GitHub Pages.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = {".cff", ".ipynb", ".md", ".py", ".toml", ".yml", ".yaml"}


def repository() -> str:
    """OWNER/REPOSITORY."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["urls"]["Repository"].removeprefix("https://github.com/")


def files() -> list[Path]:
    """Every text file of the project but this one: the tracked ones, where git is."""
    if (ROOT / ".git").exists():
        git = ["git", "ls-files"]
        done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / name for name in done.stdout.splitlines()]
    else:
        paths = [p for p in ROOT.rglob("*") if ".venv" not in p.parts]
    here = Path(__file__).resolve()
    return [p for p in paths if p.suffix in TEXT and p.is_file() and p != here]


def rewrite(text: str, old: str, new: str) -> str:
    """The text with the new repository and the new site."""
    (owner, name), (new_owner, new_name) = old.split("/"), new.split("/")
    text = re.sub(
        rf"(github(?:\.com)?/|raw\.githubusercontent\.com/){re.escape(old)}(?![\w-])",
        rf"\g<1>{new}",
        text,
    )
    return text.replace(
        f"{owner}.github.io/{name}", f"{new_owner}.github.io/{new_name}"
    )


def places(name: str) -> list[str]:
    """Addresses of a repository or site called `name` that are not the project's."""
    wanted = repository()
    owner = wanted.partition("/")[0]
    found = []
    for path in files():
        text = path.read_text()
        for match in re.finditer(r"github(?:\.com)?/([\w.-]+/([\w-]+))", text):
            if match[2] == name and match[1] != wanted:
                found.append(f"{path.relative_to(ROOT)}: {match[0]}")
        for match in re.finditer(r"([\w-]+)\.github\.io/([\w-]+)", text):
            if match[2] == name and match[1] != owner:
                found.append(f"{path.relative_to(ROOT)}: {match[0]}")
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        old, new = repository(), sys.argv[1]
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
            sys.exit(f"OWNER/REPOSITORY, not {new}")
        for path in files():
            before = path.read_text()
            after = rewrite(before, old, new)
            if after != before:
                path.write_text(after)
                print(path.relative_to(ROOT))
    else:
        elsewhere = places(repository().split("/")[1])
        print("\n".join(elsewhere))
        sys.exit(bool(elsewhere))
