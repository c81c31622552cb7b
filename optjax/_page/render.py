"""A page as the text of one HTML file, which needs no other."""

import functools
import json
from importlib import resources
from typing import Any

from optjax._page.parts import Page, plain


def render(page: Page) -> str:
    """The page; equal pages give equal texts.

    Raises:
      ModuleNotFoundError: where Jinja2 is not installed.
    """
    trials = page.trials
    data = {
        "pictures": [
            {"title": picture.title, **picture.spec} for picture in page.pictures
        ],
        "trials": trials,
    }
    # Within a script element only "<" could end it.
    text = json.dumps(plain(data), ensure_ascii=False, separators=(",", ":"))
    html: str = _template().render(
        page=page,
        data=text.replace("<", "\\u003c"),
        asset=_asset,
    )
    return html


@functools.cache
def _asset(name: str) -> str:
    return resources.files("optjax._page").joinpath("assets", name).read_text("utf-8")


@functools.cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_asset),
    )
    return environment.get_template("page.html.jinja")
