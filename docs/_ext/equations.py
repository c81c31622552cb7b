"""Equations as docstrings have them, in plain Unicode, as TeX.

`tex` is the translation of one equation, `inline` finds the equations in a sentence,
and `headline` takes a docstring's first line apart into what is displayed and what is
said.
"""

import re
import unicodedata

_LETTERS = """
    alpha beta gamma delta varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma
    tau varphi chi psi omega
"""
_SYMBOLS = {
    **{
        letter: rf"\{name}"
        for letter, name in zip("αβγδεζηθκλμνξπρστφχψω", _LETTERS.split(), strict=True)
    },
    **{"Λ": r"\Lambda", "Δ": r"\Delta", "Σ": r"\sum", "Π": r"\prod", "∞": r"\infty"},
    **{"←": r"\leftarrow", "→": r"\to", "↦": r"\mapsto", "⊙": r"\odot"},
    **{"·": r"\cdot", "×": r"\times", "−": "-", "±": r"\pm", "∇": r"\nabla"},
    **{"≤": r"\le", "≥": r"\ge", "≠": r"\ne", "≈": r"\approx", "∈": r"\in"},
    **{"…": r"\dots", "½": r"\tfrac12", "⌈": r"\lceil", "⌉": r"\rceil"},
    **{"⌊": r"\lfloor", "⌋": r"\rfloor", "‖": r"\|", "√": r"\surd", "%": r"\%"},
}
_MARKS = {"\u0302": r"\hat", "\u0304": r"\bar", "\u0303": r"\tilde"}
_LOW = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₜₖₙᵢ", "0123456789+-tkni", strict=True))
_HIGH = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵗⁿᵏᵀ", "0123456789+-tnkT", strict=True))
_FUNCTIONS = {"max", "min", "exp", "log"}
_OPERATORS = set("=←→↦⊙·×−≤≥≠≈∈+/<>|")
# What only mathematics has: a word with one of these is no prose.
_STRONG = re.compile(
    "[α-ωΛΔΣΠ∞←→↦⊙·×≤≥≠≈√∇½‖⌈⌉⌊⌋\u0302\u0304"
    + "".join(_LOW | _HIGH)
    + r"]|(?<![A-Za-z_])(?:lo|hi|[A-Za-z])_[A-Za-z0-9{]"
    r"|[A-Za-z)]\^|(?<!\w)−\w|\w\[t[+−\]]"
)


_SCRIPT = re.compile(r"−?[A-Za-zα-ω0-9]+")


def _closing(text, start):
    """The place of the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if depth == 0:
            return place
    raise ValueError(f"brackets do not match: {text}")


def _script(text, place):
    """What stands behind `_` or `^` at `place`, as TeX, and where it ends."""
    if text[place] in "{(":
        end = _closing(text, place)
        return tex(text[place + 1 : end]), end + 1
    end = _SCRIPT.match(text, place).end()
    return tex(text[place:end]), end


def tex(text):
    """The TeX of an equation in plain Unicode."""
    text, out, place = unicodedata.normalize("NFD", text), [], 0
    while place < len(text):
        c = text[place]
        marked = re.compile("(\\w)([\u0302\u0304\u0303])").match(text, place)
        word = re.compile(r"[A-Za-z]{2,}(?:'s)?").match(text, place)
        prose = re.compile(r"\s*(?:[A-Za-z]{2,}\s+)+").match(text, place)
        if marked:
            out.append(f"{_MARKS[marked[2]]}{{{_SYMBOLS.get(marked[1], marked[1])}}}")
            place += 2
        elif c == "√":
            if text[place + 1] == "(":
                end = _closing(text, place + 1)
                out.append(rf"\sqrt{{{tex(text[place + 2 : end])}}}")
                place = end + 1
            else:
                radicand = re.compile(r"\w[\u0302\u0304]?(?:_\w|[₀-₉])?").match(
                    text, place + 1
                )
                out.append(rf"\sqrt{{{tex(radicand[0])}}}")
                place = radicand.end()
        elif c in _LOW or c in _HIGH:
            table, sign = (_LOW, "_") if c in _LOW else (_HIGH, "^")
            end = place
            while end < len(text) and text[end] in table:
                end += 1
            out.append(f"{sign}{{{''.join(table[d] for d in text[place:end])}}}")
            place = end
        elif c in "_^" and re.match(r"[{(]|" + _SCRIPT.pattern, text[place + 1 :]):
            script, place = _script(text, place + 1)
            out.append(f"{c}{{{script}}}")
        elif c == "[" and out and re.match(r"\[t(?:[+−]\d)?\]", text[place:]):
            end = text.index("]", place)
            out.append(f"_{{{tex(text[place + 1 : end])}}}")
            place = end + 1
        elif prose and (place == 0 or c.isspace()) and text[prose.end() - 1].isspace():
            said = re.sub(r"\s+", " ", prose[0])
            out.append(rf"\text{{{said}}}")
            place = prose.end()
        elif word:
            name = word[0]
            if name in _FUNCTIONS:
                out.append(rf"\{name} ")
            elif text[word.end() : word.end() + 1] == "(":
                out.append(rf"\operatorname{{{name}}}")
            else:
                is_symbol = text[word.end() : word.end() + 1] == "_"
                apart = place > 0 and text[place - 1].isspace() and not is_symbol
                out.append(r"\ " * apart + rf"\mathrm{{{name}}}")
            place = word.end()
        elif c == "{":
            out.append(r"\{")
            place += 1
        elif c == "}":
            out.append(r"\}")
            place += 1
        else:
            symbol = rf"\{c}" if c in "_^#&$" else _SYMBOLS.get(c, c)
            out.append(symbol + " " * symbol.startswith("\\"))
            place += 1
    return "".join(out).strip()


def _balanced(text):
    depth = 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if depth < 0:
            return False
    return depth == 0 and text.count("|") % 2 == 0


def _is_mathematical(word):
    if re.fullmatch(r"[a-z]\[t(?:[+−]\d)?\][,.:]?", word):
        return True
    bare = word.strip("()[],;:.")
    if _STRONG.search(unicodedata.normalize("NFD", word)):
        # An English word beside a dash or a slash is none.
        return not re.search(r"[A-Za-z]{4,}", re.sub(r"_\w+|\w+(?=\()", "", bare))
    return (
        bare in _OPERATORS
        or bare in {"", "max", "min"}
        or re.fullmatch(r"[B-Zb-z]|[\d.]+(?:e[-−]?\d+)?|\(?\d+", bare) is not None
    )


def _mathematics(run):
    """A run of words in `$`, without what punctuation is the sentence's."""
    start, end = 0, len(run)
    while end > start and (run[end - 1] in ",;:." or not _balanced(run[start:end])):
        if run[end - 1] in ",;:.)]":
            end -= 1
        elif run[start] in "([":
            start += 1
        else:
            return run
    inner = run[start:end].strip()
    is_number = re.fullmatch(r"−?[\d.]+", inner)
    if is_number or not _STRONG.search(unicodedata.normalize("NFD", inner)):
        return run
    return f"{run[:start]}${tex(inner)}${run[end:]}"


def inline(sentence):
    """The sentence with its equations in `$`; what is in backticks stays as it is."""
    return "".join(
        piece if piece.startswith("`") else _inline(piece)
        for piece in re.split(r"(`[^`]*`|\*\*[^*]+\*\*)", sentence)
    )


def _inline(sentence):
    out, run = [], ""
    for word in [*re.findall(r"\s+|\S+", sentence), "\n\n"]:
        goes_on = word != "\n\n" and (
            bool(run) if word.isspace() else _is_mathematical(word)
        )
        if goes_on:
            run += word
        if not goes_on or word.endswith((",", ";", ":", ".")):
            equation = run.rstrip()
            out += [_mathematics(equation), run[len(equation) :]]
            run = ""
        if not goes_on:
            out.append(word)
    return "".join(out[:-1])


def _segments(line):
    """The line between its commas, semicolons and colons outside of brackets."""
    found, depth, start = [], 0, 0
    for place, c in enumerate(line):
        depth += (c in "([{") - (c in ")]}")
        if depth == 0 and c in ",;:" and line[place + 1 : place + 2] == " ":
            found.append((line[start:place], c))
            start = place + 2
    last = line[start:]
    return [*found, (last.removesuffix("."), "." * last.endswith("."))]


_EQUATION = re.compile(r"[=←↦⊙·]")


def headline(line):
    """What of a docstring's first line is an equation, as TeX, and the sentence."""
    segments, equations, mark = _segments(line), [], ""
    while segments:
        text, _ = segments[0]
        starts = _is_mathematical(text.split()[0]) or "(" in text.split()[0]
        is_said = "`" in text or re.search(r"\b[a-z]{2,} [a-z]{3,}\b(?!\()", text)
        if is_said or not starts or not _EQUATION.search(text):
            break
        equations.append(tex(text))
        mark = segments.pop(0)[1]
    said = "".join(f"{text}{mark} " for text, mark in segments).strip()
    if equations and mark != "," and re.match(r"[a-z]{2}|a ", said):
        said = said[0].upper() + said[1:]
    return r",\quad ".join(equations) + "," * (mark == "," and bool(said)), said
