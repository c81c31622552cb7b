"""`members`: the public names of a module with their docstrings, which are Markdown.

    ```{members} optjax._bound
    ```

A docstring's sections are `Args:`, `Returns:` and the like, each indented by two. Its
first line is an equation, or begins with one, and is typeset.
"""

import inspect
import re
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import equations
import public
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

import optjax

_HEADING = re.compile(
    r"(Args|Attributes|Returns|Yields|Raises|Examples?|References?"
    r"|Where conventions differ): ?(.*)"
)


def signature(value):
    """As it is written, without annotations: what each is stands under `Args:`."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ""
    bare = [p.replace(annotation=p.empty) for p in parameters]
    shown = str(inspect.Signature(bare))
    shown = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", shown)
    return re.sub(r"<(?:function|object) (\w+)[^>]*>|<factory>", r"\1…", shown)


def _sections(docstring):
    """(heading, the rest of its line, lines under it); first those under no heading."""
    found = [("", "", [])]
    for line in docstring.splitlines():
        heading = _HEADING.fullmatch(line)
        if heading:
            found.append((heading[1], heading[2], []))
        else:
            # An unindented line after an indented section is prose again.
            inside = found[-1][0] and not found[-1][0].startswith(("Ref", "Where"))
            if inside and line and not line.startswith(" "):
                found.append(("", "", []))
            found[-1][2].append(line)
    return found


def _entries(lines):
    """`name: what it is`, as the fields of a definition list."""
    body = textwrap.dedent("\n".join(lines)).strip()
    for entry in re.split(r"\n(?=\S)", body):
        name, colon, said = entry.partition(": ")
        if colon and re.fullmatch(r"[*\w, .]+", name):
            yield name.replace("*", r"\*"), textwrap.dedent(" " * 4 + said).strip()
        else:
            yield "", entry


def _list(heading, lines):
    yield f"**{heading}**"
    yield ""
    for name, said in _entries(lines):
        text = re.sub(r"\n\s+", "\n", said)
        yield from (f"`{name}`" if name else "…", f": {text}".replace("\n", "\n  "), "")


def markdown(docstring, *, displays=True):
    """The lines of a docstring's page."""
    first, _, rest = inspect.cleandoc(docstring).partition("\n")
    equation, said = equations.headline(first) if displays else ("", first)
    if equation:
        yield from ("$$", equation, "$$", "")
    yield from (said, "")
    for heading, beside, lines in _sections(rest):
        text = "\n".join(lines)
        if heading in ("Args", "Attributes"):
            yield from _list("Arguments" if heading == "Args" else heading, lines)
        elif heading == "Raises":
            yield from _list(heading, lines)
        elif heading.startswith("Example"):
            yield from (f"**{heading}** {beside}", "", "```pycon")
            yield from (textwrap.dedent(text).strip(), "```", "")
        elif heading:
            if not heading.startswith(("Ref", "Where")):
                text = textwrap.dedent(text)
            said = "\n".join([beside, text]).strip()
            yield from (f"**{heading}** {said}", "")
        else:
            yield from (text, "")


def _own_members(value):
    """Methods and properties of a class that have a docstring of their own."""
    fields = getattr(value, "_fields", ())
    for name, member in vars(value).items():
        if name.startswith("_") or name in fields:
            continue
        bare = getattr(member, "__func__", member)
        if inspect.getdoc(bare) and (
            inspect.isfunction(bare) or isinstance(bare, property)
        ):
            yield name, bare


def _constant(one):
    """A table of the names in a dictionary, a string's value, or nothing."""
    if isinstance(one.value, Mapping):
        return f"By name: {', '.join(f'`{key}`' for key in one.value)}."
    if isinstance(one.value, str):
        return f"The string `{one.value!r}`."
    shown = re.sub(r"\b(?:[a-z_]\w*\.)+", "", str(one.value))
    return f"A type: `{shown}`."


def block(one):
    """The lines of one public name."""
    value = one.value
    is_class, is_function = inspect.isclass(value), inspect.isroutine(value)
    kind = "class" if is_class else "function" if is_function else "data"
    shown = signature(value) if is_class or is_function else ""
    yield f"::::{{py:{kind}}} {one.name}{shown}"
    yield f":module: {one.module}"
    yield ""
    if is_class or is_function:
        yield from markdown(value.__doc__ or "")
    else:
        yield from (_constant(one), "")
    for name, member in _own_members(value) if is_class else ():
        is_property = isinstance(member, property)
        if is_property:
            yield f":::{{py:property}} {one.name}.{name}"
        else:
            shown = re.sub(r"\((self|cls)(, )?", "(", signature(member))
            yield f":::{{py:method}} {one.name}.{name}{shown}"
        yield from (f":module: {one.module}", "")
        yield from (*markdown(member.__doc__, displays=False), ":::", "")
    yield from ("::::", "")


class Members(Directive):
    required_arguments = 1

    def run(self):
        # A change of any docstring is a change of these pages.
        env = self.state.document.settings.env
        for folder in (Path(optjax.__file__).parent, Path(__file__).parent):
            for path in folder.rglob("*.py"):
                env.note_dependency(str(path))
        lines = []
        for one in public.members(self.arguments[0]):
            lines += "\n".join(block(one)).split("\n")
        container = nodes.container(classes=["members"])
        source = self.state.document.current_source
        self.state.nested_parse(StringList(lines, source=source), 0, container)
        return container.children


class Rows(Directive):
    """Every row of the table with its parts and its paper."""

    def run(self):
        lines = [
            "| | direction m | rate V | bound | schedule s | source |",
            "|---" * 6 + "|",
        ]
        for name, row in optjax.OPTIMIZERS.items():
            call = getattr(row, "call", name)
            call = call.removesuffix("()")
            cells = [row.direction, row.rate, row.bound, row.schedule]
            typeset = [_cell(cell) for cell in cells]
            lines.append("| " + " | ".join([f"`{call}`", *typeset, row.paper]) + " |")
        container = nodes.container(classes=["rows"])
        self.state.nested_parse(StringList(lines), 0, container)
        return [container]


def _cell(text):
    """Each of its equations by itself, so that a line may break between them."""
    if text == "–":
        return text
    parts = re.split(r"([,;] )(?![^(]*\))", text)
    parts[::2] = [f"${equations.tex(part)}$" for part in parts[::2]]
    return "".join(parts).replace("|", r"\vert ")


class LinkNames(SphinxTransform):
    """A public name of ours in backticks is a link to it, on every page."""

    default_priority = 400

    def apply(self):
        inside_optjax = self.env.docname.startswith("reference/")
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().partition("(")[0]
            target = _targets().get(name)
            plain = "." not in name and "_" not in name
            if target is None or (plain and not inside_optjax):
                continue
            if isinstance(literal.parent, nodes.reference | nodes.title):
                continue
            link = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=target,
                refwarn=True,
                refdoc=self.env.docname,
            )
            literal.replace_self(link)
            link += literal


@cache
def _targets():
    """Full names by what a page may call them: `optjax.sweep.run`, `sweep.run`, …"""
    found = {}
    for one in public.names():
        path = str(one).split(".")
        # `nnx.Optimizer` is Flax's: two parts are enough only right below optjax.
        for start in {0, len(path) - 1} | ({1} if len(path) == 3 else set()):
            found.setdefault(".".join(path[start:]), str(one))
    return found


def complain_of_missing(app, env):
    documented = public.documented()
    for one in public.names():
        if str(one) not in documented:
            logging.getLogger(__name__).warning("%s is on no page of reference/", one)


def setup(app):
    app.add_directive("members", Members)
    app.add_directive("rows", Rows)
    app.add_transform(LinkNames)
    app.connect("env-updated", complain_of_missing)
    return {"parallel_read_safe": True}
