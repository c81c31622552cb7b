"""What decides, in words and as a picture."""

from optjax._page.parts import Picture, Verdict, axis
from optjax.sweep._report.study import Study

# A fall of R² that may as well be nothing.
_LITTLE = 0.01


def importance(study: Study) -> list[Verdict]:
    """Which hyper-parameter of the first optimizer decides, and which hardly matter."""
    optimizer = study.best.config.optimizer
    found = study.importance
    if not found or not found[0].low > 0:
        return []
    first = found[0]
    idle = [one.name for one in found[1:] if one.low < _LITTLE]
    said = f"{first.name} decides most of what comes of {optimizer}"
    if idle:
        said += f"; {', '.join(idle)} hardly matter{'s' * (len(idle) == 1)}"
    numbers = ", ".join(
        f"{one.name} {_two(one.mean)} ({_two(one.low)} to {_two(one.high)})"
        for one in found
    )
    return [
        Verdict(
            "importance",
            "note",
            f"{said}.",
            f"Fall of a forest's R² when the values are permuted: {numbers}.",
        )
    ]


def importance_picture(study: Study) -> list[Picture]:
    """A row a hyper-parameter of the first optimizer."""
    found = study.importance
    rows = [
        {"label": o.name, "value": o.mean, "low": o.low, "high": o.high} for o in found
    ]
    picture = Picture(
        f"Importance for {study.best.config.optimizer}",
        "By how much a forest's R² on configurations that it has not seen falls when "
        "a hyper-parameter's values are permuted; 90 % of folds and permutations are "
        "within the bar.",
        {"kind": "intervals", "x": axis("importance", [], is_log=False), "rows": rows},
    )
    return [picture] * bool(found)


def _two(value: float) -> str:
    # Without the sign of a zero.
    return f"{round(value, 2) + 0.0:.2f}"
