"""Equations in plain Unicode become the TeX that the site shows."""

import inspect

import equations
import public
import pytest

HEADLINES = {
    "x[t+1] = x[t] − s_t · V_t ⊙ m_t: `update` in one call.": (
        r"x_{t+1} = x_{t} - s_{t} \cdot  V_{t} \odot  m_{t}",
        "`update` in one call.",
    ),
    "ν_t = ν_{t−1} + |g_t|², which never decreases.": (
        r"\nu _{t} = \nu _{t-1} + |g_{t}|^{2},",
        "which never decreases.",
    ),
    "V_t = 1 / (√(ν_t + ε̄) + ε): a rate.": (
        r"V_{t} = 1 / (\sqrt{\nu _{t} + \bar{\varepsilon}} + \varepsilon )",
        "A rate.",
    ),
    "x ← x − α_t m_t / (√ν̂_t + ε), ν_t = Σ k^−γ g_k².": (
        r"x \leftarrow  x - \alpha _{t} m_{t} / (\sqrt{\hat{\nu}_{t}} + \varepsilon ),"
        r"\quad \nu _{t} = \sum  k^{-\gamma} g_{k}^{2}",
        "",
    ),
    "The latest summaries in an optimizer's state.": (
        "",
        "The latest summaries in an optimizer's state.",
    ),
}

SENTENCES = {
    "β₁ in [0, 1), decay of m.": r"$\beta _{1}$ in [0, 1), decay of m.",
    "see `a_t = b_t` and (α_t).": r"see `a_t = b_t` and $(\alpha _{t})$.",
    "both lo_t ≤ V_t and e^(−t/50) hold": (
        r"both $\mathrm{lo}_{t} \le  V_{t}$ and $e^{-t/50}$ hold"
    ),
    "from (1, −1) on, the other − a dash − stays": (
        "from (1, −1) on, the other − a dash − stays"
    ),
    "rate_by_one, update/weight are words": "rate_by_one, update/weight are words",
}


@pytest.mark.parametrize("line", HEADLINES)
def test_headline(line):
    assert equations.headline(line) == HEADLINES[line]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentence(sentence):
    assert equations.inline(sentence) == SENTENCES[sentence]


def test_brackets_of_every_docstring_match():
    """What MathJax could not read."""
    typeset = 0
    for one in public.names():
        if not callable(one.value):
            continue
        for line in (inspect.getdoc(one.value) or "").splitlines():
            for tex in equations.inline(line).split("$")[1::2]:
                typeset += 1
                assert tex.count("{") == tex.count("}"), tex
    assert typeset > 300
