"""A monitored training as one HTML page. It needs Jinja2."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np

from optjax._arguments.checked import checked
from optjax._arguments.kind import Kind
from optjax._arguments.named import Text
from optjax._groups import OVERALL
from optjax._page.parts import Page, Picture, Verdict, axis
from optjax._page.render import render
from optjax.monitoring._final_rate import band_notes, suggested
from optjax.monitoring._report import Report, Reports, stack_reports, transition
from optjax.monitoring._summary import PROBABILITIES, Summary

__all__ = ["report_page"]


class _Mappings(Kind):
    def accepts(self, value: Any) -> bool:
        is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
        return is_sequence and all(isinstance(item, Mapping) for item in value)


_Hyperparameters: TypeAlias = Annotated[
    Sequence[Mapping[str, Any]],
    _Mappings("a sequence of mappings", "One a report"),
]
# An elasticity below this moves nothing.
_INERT = 0.05


@checked
def report_page(
    reports: Reports,
    *,
    hyperparameters: _Hyperparameters | None = None,
    title: Text = "Monitored training",
) -> str:
    """One HTML page of a monitored training: verdicts, and pictures over its steps.

    The rates between their bounds, as they are and without the schedule, r / s_t, which
    shows the band close where the learning rate decays; each layer's median rate, its
    way to SGD and its update/weight ratio; with `optjax.monitor(..., audit=True)` how
    the step answers to the learning rate and to the bounds. The file needs no other
    and no network; equal reports give equal bytes. Needs the extra `race`.

    Args:
      reports: reports in the order of time, or one whose first axis is time.
      hyperparameters: what `optjax.hyperparameters` returned at each report, to
        be drawn over time; as many as there are reports.
      title: the page's heading.

    Returns:
      The page, to be written as UTF-8:
      `Path("training.html").write_text(page, encoding="utf-8")`.

    Raises:
      ValueError: for reports with another leading axis than one of time, for none that
        has seen a step, and for another number of hyper-parameters than of reports.

    Example:
      >>> import jax, jax.numpy as jnp, optjax, optjax.monitoring
      >>> tx = optjax.monitor(optjax.adabound(1e-3, gamma=0.1), every=1)
      >>> x = jnp.array([1.0, 2.0])
      >>> def step(state, _):
      ...     _, state = tx.update(x, state, x)
      ...     return state, state
      >>> _, states = jax.lax.scan(step, tx.init(x), length=8)
      >>> page = optjax.monitoring.report_page(optjax.read_report(states))
      >>> "Rates between their bounds" in page
      True
    """
    over_time = stack_reports(reports)
    if not len(over_time.steps):
        raise ValueError(
            "nothing to show: none of the reports has seen a step. Take them after "
            "`update`, from an optimizer whose monitor is on (every >= 1)."
        )
    pictures = _pictures(over_time)
    if hyperparameters is not None:
        pictures.append(_hyperparameters(reports, hyperparameters))
    steps = over_time.steps
    page = Page(
        title=title,
        lead=[
            f"{_told(len(steps), 'summary', 'summaries')} of steps {steps[0]:,} to "
            f"{steps[-1]:,}; {_told(len(over_time) - 1, 'group', 'groups')}."
        ],
        verdicts=_verdicts(over_time),
        pictures=pictures,
    )
    return render(page)


def _told(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _verdicts(over_time: Report) -> list[Verdict]:
    last = over_time.at(-1)
    found = [*_to_sgd(over_time), *_elasticity(over_time)]
    rate = suggested(over_time)
    if rate is not None:
        found.append(
            Verdict(
                "final-rate",
                "note",
                f"{rate}.",
                "Norms of the adaptive step and of the direction; see "
                "optjax.suggest_final_lr.",
                f"optjax.adabound(..., final_lr={rate.final_lr:.2g})",
            )
        )
    found += [
        Verdict(
            "band", "warning", f"{note.rstrip('.')}.", "From the bounds at the end."
        )
        for note in band_notes(last)
    ]
    return found


def _to_sgd(over_time: Report) -> list[Verdict]:
    since = transition(over_time)
    bounded = [
        name for name, summary in over_time.items() if np.isfinite(summary.sgd_rate[-1])
    ]
    if not bounded:
        return []
    there = {name: since[name] for name in bounded if since[name] is not None}
    steps = over_time.steps[-1]
    if OVERALL in there:
        says = f"It is SGD since step {there[OVERALL]:,} of {steps:,}."
        return [Verdict("transition", "good", says, _since(there))]
    return [
        Verdict(
            "transition",
            "note",
            f"It is not SGD by step {steps:,}: {len(there)} of {len(bounded)} groups "
            "are.",
            _since(there) or "No group's rates have met the one they converge to.",
        )
    ]


def _are_sgd(over_time: Report) -> set[str]:
    return {name for name, step in transition(over_time).items() if step is not None}


def _since(there: Mapping[str, int | None]) -> str:
    return "; ".join(f"{name} since {step:,}" for name, step in there.items())


def _elasticity(over_time: Report) -> list[Verdict]:
    inert = [
        name
        for name, summary in over_time.items()
        if abs(summary.rate_elasticity[-1]) < _INERT
    ]
    if not inert:
        return []
    numbers = ", ".join(
        f"{name} {over_time[name].rate_elasticity[-1]:.2g}" for name in inert
    )
    return [
        Verdict(
            "inert",
            # What has become SGD by its bounds is meant to.
            "note" if set(inert) <= _are_sgd(over_time) else "warning",
            f"The learning rate moves nothing in {', '.join(inert)} at the end: the "
            "bounds decide the step.",
            f"Elasticity of the step to the learning rate: {numbers}.",
            "optjax.audit(tx, grads, state, params)",
        )
    ]


def _pictures(over_time: Report) -> list[Picture]:
    overall = over_time[OVERALL]
    steps = over_time.steps
    found = [
        _rates(
            "Rates between their bounds",
            "All coordinates: the median, and the band that holds 90 % of them.",
            "effective rate s·V",
            steps,
            overall,
            np.ones_like(overall.schedule),
        )
    ]
    schedule = overall.schedule
    if len(np.unique(schedule[np.isfinite(schedule)])) > 1:
        found.append(
            _rates(
                "The same without the schedule",
                "r / s_t, so that a schedule that decays does not hide the band that "
                "closes. A step at which the schedule is 0 has no rate.",
                "effective rate V",
                steps,
                overall,
                schedule,
            )
        )
    middle = PROBABILITIES.index(0.5)
    found += [
        _by_group(
            over_time,
            "Median rate of each group",
            "effective rate s·V",
            lambda s: _powers(s.quantiles[:, middle]),
            is_log=True,
        ),
        _by_group(
            over_time,
            "On the way to SGD",
            "share near the SGD rate",
            lambda s: s.near_sgd,
        ),
        _by_group(
            over_time,
            "Update over weight",
            "‖Δx‖ / ‖x‖",
            lambda s: _positive(s.update_ratio),
            is_log=True,
        ),
        _by_group(
            over_time,
            "Elasticity of the learning rate",
            "∂ log‖Δx‖ / ∂ log α",
            lambda s: s.rate_elasticity,
        ),
        _by_group(
            over_time,
            "Elasticity of the bounds",
            "∂ log‖Δx‖ / ∂ log of both bounds",
            lambda s: s.bound_elasticity,
        ),
        _shares(steps, overall),
    ]
    return [picture for picture in found if picture.spec["series"]]


def _over_steps(
    title: str,
    caption: str,
    label: str,
    steps: Any,
    series: Sequence[dict[str, Any] | None],
    *,
    is_log: bool,
    **more: Any,
) -> Picture:
    """Lines over the steps, those that there are."""
    return Picture(
        title,
        caption,
        {
            "kind": "lines",
            # Bounds close as 1/t: on a linear axis all of it happens at the left edge.
            "x": axis("step", [], is_log=bool(steps[-1] >= 100 * steps[0])),
            "y": axis(label, [], is_log=is_log),
            "series": [line for line in series if line is not None],
            **more,
        },
    )


def _powers(log: Any) -> Any:
    return np.where(
        np.isfinite(log), 10.0 ** np.where(np.isfinite(log), log, 0), np.nan
    )


def _positive(values: Any) -> Any:
    """What a logarithmic axis can show."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _rates(
    title: str, caption: str, label: str, steps: Any, summary: Summary, by: Any
) -> Picture:
    whole = np.where(by > 0, by, np.nan)
    low, middle, high = (
        _powers(summary.quantiles[:, PROBABILITIES.index(p)]) / whole
        for p in (0.05, 0.5, 0.95)
    )
    series = [_series("rates", steps, middle, low=low, high=high)]
    for name, values in (
        ("lower bound", summary.lower),
        ("upper bound", summary.upper),
        ("SGD", summary.sgd_rate),
    ):
        series.append(_series(name, steps, _positive(values / whole)))
    return _over_steps(
        title,
        caption,
        label,
        steps,
        series,
        is_log=True,
        domain=_visible(low, high, _positive(summary.sgd_rate / whole)),
        wide=True,
    )


def _visible(*values: Any) -> list[float] | None:
    """The ends of the rates, and of that of SGD: wide bounds would hide both."""
    every = np.concatenate([v[np.isfinite(v)] for v in values])
    if not len(every):
        return None
    return [float(every.min()) / 4, float(every.max()) * 4]


def _by_group(
    over_time: Report, title: str, label: str, of: Any, *, is_log: bool = False
) -> Picture:
    series = [
        _series(name, over_time.steps, of(summary))
        for name, summary in over_time.items()
    ]
    caption = f"{label} of each group over the steps."
    return _over_steps(title, caption, label, over_time.steps, series, is_log=is_log)


def _shares(steps: Any, summary: Summary) -> Picture:
    is_bounded = np.isfinite(summary.upper)
    series = [
        _series(name, steps, np.where(is_bounded, share, np.nan))
        for name, share in (
            ("at the lower bound", summary.at_lower),
            ("between", summary.between),
            ("at the upper bound", summary.at_upper),
        )
    ]
    return _over_steps(
        "Where the rates are",
        "The share of all coordinates at a bound, and between the two.",
        "share",
        steps,
        series,
        is_log=False,
    )


def _series(name: str, steps: Any, y: Any, **band: Any) -> dict[str, Any] | None:
    if not np.isfinite(y).any():
        return None
    return {
        "name": name,
        "x": steps.tolist(),
        "y": np.asarray(y, float).tolist(),
        **{end: np.asarray(values, float).tolist() for end, values in band.items()},
    }


def _hyperparameters(reports: Reports, given: Sequence[Mapping[str, Any]]) -> Picture:
    seen = reports.steps if isinstance(reports, Report) else [r.steps for r in reports]
    steps = np.asarray(seen)
    if len(given) != len(steps):
        raise ValueError(
            f"hyperparameters needs one mapping a report, {len(steps)} of them, got "
            f"{len(given)}"
        )
    names = dict.fromkeys(name for mapping in given for name in mapping)
    series = []
    for name in names:
        values = np.array([float(mapping.get(name, math.nan)) for mapping in given])
        series.append(_series(name, steps, _positive(values)))
    return _over_steps(
        "Hyper-parameters",
        "As they were at each report.",
        "value",
        steps,
        series,
        is_log=True,
    )
