"""How Sphinx builds the site: `make -C docs html`."""

import inspect
import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import public  # noqa: E402

import optjax  # noqa: E402

_project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
_repository = _project["urls"]["Repository"]

project = "optjax"
author = _project["authors"][0]["name"]
copyright = author
release = version = optjax.__version__

extensions = [
    "reference",
    "sources",
    "typeset",
    "myst_nb",
    "sphinx.ext.linkcode",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_ext", "Makefile"]

# Notebooks are shown as they were committed; tests run them.
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# In plain pages an indented block is output or a command.
highlight_language = "none"
add_module_names = False
python_maximum_signature_line_length = 80
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "sphinx_book_theme"
html_title = "optjax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = html_favicon = "_static/logo.svg"
html_baseurl = _project["urls"]["Documentation"]
html_context = {"repository": _repository}
html_theme_options = {
    "repository_url": _repository,
    "repository_branch": "main",
    "path_to_docs": "docs",
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "home_page_in_toc": True,
}


def linkcode_resolve(domain, info):
    """The line of the repository where a public name is defined."""
    value = public.modules().get(info["module"])
    for part in info["fullname"].split("."):
        value = getattr(value, part, None)
    value = getattr(value, "fget", value)
    try:
        path = Path(inspect.getsourcefile(inspect.unwrap(value)))
        line = inspect.getsourcelines(inspect.unwrap(value))[1]
    except TypeError:
        return None
    if not path.is_relative_to(DOCS.parent):
        return None
    return f"{_repository}/blob/main/{path.relative_to(DOCS.parent)}#L{max(line, 1)}"
