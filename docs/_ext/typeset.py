"""Pages write equations in plain Unicode; here they become mathematics."""

import re

import equations
from docutils import nodes
from sphinx.transforms import SphinxTransform

_LEAVE = (
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.title,
    nodes.raw,
    nodes.comment,
    nodes.Inline,
)


class Sentences(SphinxTransform):
    """The equations in a sentence."""

    default_priority = 410

    def apply(self):
        for text in list(self.document.findall(nodes.Text)):
            parent = text.parent
            inside = isinstance(parent, nodes.emphasis | nodes.strong)
            if "$" in text or (isinstance(parent, _LEAVE) and not inside):
                continue
            pieces = equations.inline(text.astext()).split("$")
            if len(pieces) > 1:
                made = [
                    nodes.math(piece, piece, nowrap=False)
                    if odd % 2
                    else nodes.Text(piece)
                    for odd, piece in enumerate(pieces)
                    if piece
                ]
                parent.replace(text, made)


class Blocks(SphinxTransform):
    """An indented block that is one equation and nothing else."""

    default_priority = 410

    def apply(self):
        for block in list(self.document.findall(nodes.literal_block)):
            text = block.astext().strip()
            if "\n" in text or block.get("language") not in (None, "none", "default"):
                continue
            if re.search(r"[=←]", text) and not re.search(
                r"  |`|\.\w|[A-Za-z]{4,}", text
            ):
                equation, said = equations.headline(text)
                if equation and not said:
                    math = nodes.math_block(
                        equation, equation, nowrap=False, number=None
                    )
                    block.replace_self(math)


def setup(app):
    app.add_transform(Sentences)
    app.add_transform(Blocks)
    return {"parallel_read_safe": True}
