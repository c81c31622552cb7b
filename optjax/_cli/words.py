"""The words of a command line: which cannot be meant, and messages in a shell's words.

Below the command line arguments are Python's: `draws=16`, `evaluate_every must be an
integer`. Who wrote `--draws 16` is answered with `--draws 16`.
"""

import contextlib
import inspect
import io
import re
import typing
from collections.abc import Callable, Sequence
from typing import Any

from optjax._names import meant

#: The exit status where the words are wrong, tyro's too.
USAGE_ERROR = 2

# Arguments that the command line calls by another name.
_FLAGS = {"min_steps": "stop-early", "warm_up": "median", "batch": "search-batch"}


class UsageError(Exception):
    """What is wrong with the command line, in one line."""


def parse(
    function: Callable[..., Any],
    options: Sequence[str],
    prog: str,
    description: str,
    default: Any = None,
) -> Any:
    """What `function` makes of the options.

    Args:
      function: whose arguments, or fields, the options are.
      options: the words.
      prog: the command.
      description: what its help says.
      default: a result of `function` that has what the options leave out.

    Raises:
      UsageError: where they cannot be read.
    """
    import tyro

    if fault := words_fault(function, options):
        raise UsageError(f"{fault}; see {prog} --help")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                function,
                prog=prog,
                description=description,
                args=list(options),
                **({} if default is None else {"default": default}),
            )
    except SystemExit as stop:
        if stop.code != USAGE_ERROR:
            raise
        line = parser_fault(function, options, errors.getvalue())
        raise UsageError(f"{line}; see {prog} --help") from None


def words_fault(function: Callable[..., Any], words: Sequence[str]) -> str:
    """What is wrong with words as such, whatever they stand for; "" if nothing."""
    flags = [f"--{name.replace('_', '-')}" for name in _types(function)]
    seen: set[str] = set()
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        is_flag = flag in flags
        if "\0" in word:
            return f"an argument has a NUL character: {word!r}"
        if is_flag and flag in seen:
            return f"{flag} is given twice; write all of its values after one"
        if is_flag and equals and not value.strip():
            return f"{flag} needs a value that is not empty"
        if not word.strip():
            if index and words[index - 1] in flags:
                return f"{words[index - 1]} needs a value that is not empty"
            return "an argument is empty"
        if is_flag:
            seen.add(flag)
    return ""


def parser_fault(
    function: Callable[..., Any], words: Sequence[str], message: str
) -> str:
    """A tyro error in one line: what an argument must be, and what it got.

    tyro draws a box, of ASCII where the terminal knows no better, with rules between
    its sections. What it says of types is its own business.
    """
    sections = re.split(r"[─-]{4,}", re.sub(r"[╭╮╰╯│]", " ", message))
    _, *texts = [" ".join(section.split()) for section in sections]
    gist = next((text for text in texts if text), "the arguments cannot be read")
    gist = gist.rstrip(".")
    if found := re.match(r"Error parsing (--[\w-]+)", gist):
        return _must_be(function, words, found[1])
    if found := re.match(r"Missing value for argument '?(--[\w-]+)", gist):
        return f"{found[1]} needs a value"
    if found := re.match(r"Missing from .*?: ([A-Z]+) ", gist):
        return f"{found[1]} must be given"
    gist = re.sub(r"^Unrecognized options: ", "unknown argument ", gist)
    unknown = re.search(r"--[\w-]+", gist)
    flags = [f"--{name.replace('_', '-')}" for name in _types(function)]
    if unknown and unknown[0] in flags:
        # It is known by its place.
        value = _values(words, unknown[0])
        return f"{unknown[0]} is no flag here; write {value or 'its value'} without it"
    first = "".join(words[:1])
    if flags and first[:1] != "-" and gist == f"unknown argument {first}":
        return f"{gist}; write its flag before it, such as {flags[0]} {first}"
    return gist + (meant(unknown[0], flags, most=1) if unknown else "")


def names_in(word: str) -> list[str]:
    """The names of one word, where commas or spaces were put between them."""
    return re.split(r"[\s,]+", word.strip())


def in_shell_words(message: str, names: Sequence[str]) -> str:
    """A message of the API's in which the arguments `names` are flags.

    What stands in quotes is the user's own.
    """
    known = "|".join(sorted([*names, *_FLAGS], key=len, reverse=True))

    def flag(name: str) -> str:
        return f"--{_FLAGS.get(name, name).replace('_', '-')}"

    def given(found: re.Match[str]) -> str:
        # What is given may be the next part, in quotes.
        is_quoted = found.end() == len(found.string) and index + 1 < len(parts)
        return flag(found[1]) + (f" {found[2]}" if found[2] or is_quoted else "")

    parts = re.split(r"('[^']*'|\"[^\"]*\")", message)
    for index in range(0, len(parts), 2):
        part = re.sub(rf"\b({known})= \(--[\w-]+\)", r"\1=", parts[index])
        part = re.sub(rf"(?<![\w-])({known})=([^\s,;.)]*)", given, part)
        if index == 0:
            part = re.sub(rf"^({known}) must", lambda m: f"{flag(m[1])} must", part)
        parts[index] = part.replace("must be None or ", "must be ")
    return "".join(parts)


def _must_be(function: Callable[..., Any], words: Sequence[str], flag: str) -> str:
    kind = _types(function)[flag.removeprefix("--").replace("-", "_")]
    one, many = ("a number", "numbers") if float in kind else ("a whole number",) * 2
    given = _values(words, flag)
    if tuple not in kind:
        return f"{flag} must be {one}, got {given!r}"
    parts = re.split(r"[\s,]+", given.strip())
    apart = f", such as {flag} {' '.join(parts)}" if "," in given else ""
    return f"{flag} must be {many} with spaces between them{apart}, got {given!r}"


def _values(words: Sequence[str], flag: str) -> str:
    for index, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if word == flag:
            rest = [*words[index + 1 :], "--"]
            return " ".join(
                rest[: next(i for i, w in enumerate(rest) if w[:2] == "--")]
            )
    return ""


def _types(function: Callable[..., Any]) -> dict[str, set[Any]]:
    """Each argument's types: those of a union, and what a tuple is and holds."""

    def members(annotation: Any) -> set[Any]:
        found = {annotation, typing.get_origin(annotation)}
        return found.union(*map(members, typing.get_args(annotation)))

    parameters = inspect.signature(function).parameters.values()
    return {p.name: members(p.annotation) for p in parameters}
