"""Verdicts on the values that were tried: too narrow, flat, steep, or diverging."""

import math
from collections.abc import Mapping, Sequence

from optjax._page.parts import Verdict
from optjax.sweep._ranking import TOLERANCE, Standing, numeric
from optjax.sweep._records import DIVERGED, FAILED
from optjax.sweep._report.again import Range
from optjax.sweep._report.study import Study
from optjax.sweep._store.files import as_text

# Of the values' span, where they were drawn: nearer than this to an end is at it.
_NEAR = 0.05
# A band as wide as this factor is a plateau.
_PLATEAU = 10.0
# A neighbour that is so much worse shows that the value matters.
_STEEP = 0.05
# Numbers below 1 whose distance from 1 is what counts.
_DECAYS = ("b1", "b2", "b3", "decay", "momentum", "rho")


def edge(study: Study) -> list[Verdict]:
    """The best point lies at the end of what was tried."""
    found = []
    for standing in study.standings:
        best = standing.best
        if math.isinf(best.median):
            continue
        for name in study.varied(best.config.optimizer):
            values = study.tried(name, best.config.optimizer)
            value = numeric(best.config, name)
            if value is None or len(values) < 3:
                continue
            side = _side(name, value, values, study.drawn(name, values))
            if side:
                found.append((standing, name, value, side, values))
    first = [one for one in found if one[0] is study.standings[0]]
    verdicts = []
    for standing, name, value, side, values in first:
        verdicts.append(
            Verdict(
                "edge",
                "warning",
                f"The best {name} of {standing.best.config.optimizer}, "
                f"{as_text(value)}, lies at the edge of what was tried.",
                f"{name} was tried from {as_text(values[0])} to {as_text(values[-1])}; "
                "the best may lie outside.",
                _wider(study, standing, name, values, side),
            )
        )
    others = dict.fromkeys(
        f"{standing.best.config.optimizer} ({name} {as_text(value)})"
        for standing, name, value, _, _ in found
        if standing is not study.standings[0]
    )
    if others:
        standing, name, _, side, values = next(o for o in found if o not in first)
        verdicts.append(
            Verdict(
                "edge-of-others",
                "note",
                f"{len(others)} other optimizer{'s' * (len(others) > 1)} would like "
                "values outside of what was tried.",
                f"At the edge: {', '.join(others)}.",
                _wider(study, standing, name, values, side),
            )
        )
    return verdicts


def diverged(study: Study) -> list[Verdict]:
    """The share of the trials that diverged, and from which learning rate on."""
    records = study.ranking.records
    lost = [record for record in records if record.status == DIVERGED]
    if not lost or math.isinf(study.best.median):
        return []
    share = len(lost) / len(records)
    rates: dict[float, list[bool]] = {}
    for record in records:
        rate = numeric(record.trial.config, "learning_rate")
        if rate is not None:
            rates.setdefault(rate, []).append(record.status == DIVERGED)
    dead = _dead_from(rates)
    only = [record.trial.config.optimizer for record in lost]
    evidence = f"By optimizer: {_counted(only)}."
    if dead is not None:
        evidence += f" Every trial did with learning_rate {as_text(dead)} or more."
    by_others = study.lost_by_others
    is_asked = share > 1 / 3 and not (by_others and study.is_known_sound)
    return [
        Verdict(
            "diverged",
            "warning" if share > 1 / 3 else "note",
            f"{len(lost)} of {len(records)} trials diverged ({share:.0%}).",
            f"{evidence} {by_others}".rstrip(),
            _below(study, dead) if dead is not None and is_asked else "",
        )
    ]


def failed(study: Study) -> list[Verdict]:
    """Trials that an error ended."""
    records = study.ranking.records
    lost = [record for record in records if record.status == FAILED]
    if not lost:
        return []
    messages = dict.fromkeys(record.message for record in lost)
    return [
        Verdict(
            "failed",
            "warning",
            f"{len(lost)} of {len(records)} trials failed by an error.",
            " ".join(messages),
        )
    ]


def _dead_from(rates: Mapping[float, Sequence[bool]]) -> float | None:
    """The smallest rate from which on every trial diverged."""
    dead = None
    for rate in sorted(rates, reverse=True):
        if not all(rates[rate]):
            break
        dead = rate
    return dead


def flat(study: Study) -> list[Verdict]:
    """A hyper-parameter that makes no difference, and one that matters."""
    return [
        verdict
        for standing in study.standings[:1]
        for verdict in _flat_or_steep(study, standing)
    ]


def _flat_or_steep(study: Study, standing: Standing) -> list[Verdict]:
    band, best = standing.band, standing.best
    if band is None:
        return []
    optimizer, name = best.config.optimizer, band.name
    values = study.tried(name, optimizer)
    if len(values) < 3:
        return []
    if band.low > 0 and band.high / band.low >= _PLATEAU:
        whole = (band.low, band.high) == (values[0], values[-1])
        return [
            Verdict(
                "plateau",
                "note",
                f"{name} makes no difference to {optimizer} from {as_text(band.low)} "
                f"to {as_text(band.high)}{', all that was tried' * whole}.",
                f"Every median in between is within {TOLERANCE:.0%} of the best; the "
                f"choice, {as_text(numeric(best.config, name))}, is in the middle of "
                "those that are equal.",
            )
        ]
    medians = {
        numeric(other.config, name): other.median
        for other in study.ranking.configurations(optimizer)
    }
    place = values.index(numeric(best.config, name))  # type: ignore[arg-type]
    if place in (0, len(values) - 1):
        return []
    near = [values[place - 1], values[place + 1]]
    loss = {v: _worse(best.median, medians[v]) for v in near}
    if min(loss.values()) > _STEEP:
        said = [
            f"{as_text(v)} {'diverges' if math.isinf(x) else f'is {x:.0%} worse'}"
            for v, x in loss.items()
        ]
        at = as_text(numeric(best.config, name))
        finer = _between(values, place)
        return [
            Verdict(
                "matters",
                "note",
                f"{name} matters to {optimizer}: its neighbours are clearly worse.",
                f"Best at {at}; {', '.join(said)}.",
                study.again({name: finer}),
            )
        ]
    return []


def _worse(best: float, other: float) -> float:
    return abs(other - best) / abs(best) if best else math.inf


def _side(name: str, value: float, values: Sequence[float], drawn: Range | None) -> int:
    """−1 at the lower end, 1 at the upper, 0 inside or where nothing lies outside."""
    low, high, _ = drawn or Range(values[0], values[-1], is_log=False)
    side = _nearest(value, values, drawn)
    is_last = low == 0 if side < 0 else name in _DECAYS and high == 1
    return 0 if is_last else side


def _nearest(value: float, values: Sequence[float], drawn: Range | None) -> int:
    if drawn is None:
        return (value == values[-1]) - (value == values[0])
    ends = drawn.low, value, drawn.high
    low, at, high = (math.log(v) if drawn.is_log else v for v in ends)
    share = (at - low) / (high - low)
    return (share > 1 - _NEAR) - (share < _NEAR)


def _wider(
    study: Study, standing: Standing, name: str, values: Sequence[float], side: int
) -> str:
    """Of values that go on where these end."""
    of = standing.best.config
    drawn = study.drawn(name, values)
    if drawn is not None:
        return study.again({name: _wider_range(name, drawn, side)}, of=of)
    is_whole = isinstance(of.values[name], int)
    further = _further(name, values, side, is_whole=is_whole)
    tried = {v for who in study.ranking.optimizers for v in study.tried(name, who)}
    return study.again({name: further}, of=of, grows=tried <= {*further})


def _wider_range(name: str, drawn: Range, side: int) -> Range:
    low, high, is_log = drawn
    is_decay = _is_decay(name, (low, high))
    more = (high - low) / 2
    if side > 0 and is_decay:
        high = 1 - (1 - high) / 10
    elif is_log:
        low, high = (low / 10, high) if side < 0 else (low, high * 10)
    elif side > 0:
        high += more
    else:
        # Where all were positive, what is not may be out of range.
        low = max(low - more, low / 2) if low > 0 else low - more
    # Of 0.9999 the nines count.
    top = float(f"{1 - _shorter(1 - high):.6g}") if is_decay else _shorter(high)
    return Range(_shorter(low), top, is_log)


def _is_decay(name: str, values: Sequence[float]) -> bool:
    return name in _DECAYS and values[0] >= 0 and values[-1] < 1


def _further(
    name: str, values: Sequence[float], side: int, *, is_whole: bool
) -> list[float]:
    """The grid with two more values at one end, in the grid's own steps."""
    if _is_decay(name, values):
        more = _more([1 - value for value in reversed(values)], -side)
        # Of 0.9999 the nines count.
        further = [float(f"{1 - value:.6g}") for value in more]
        return sorted([*values, *(value for value in further if value >= 0)])
    return sorted([*values, *_more(values, side, is_whole=is_whole)])


def _below(study: Study, dead: float) -> str:
    """Of the learning rates at which something has lived."""
    values = study.tried("learning_rate", study.best.config.optimizer)
    alive = [value for value in values if value < dead]
    drawn = study.drawn("learning_rate", values)
    if drawn is not None:
        low = _shorter(drawn.low)
        return study.again({"learning_rate": Range(low, _shorter(dead), low > 0)})
    return study.again({"learning_rate": alive}) if alive else ""


def _more(values: Sequence[float], side: int, *, is_whole: bool = False) -> list[float]:
    """The next two in the steps of the grid; after 0.003 and 0.01 come 0.03 and 0.1."""
    far, near, end = values[2::-1] if side < 0 else values[-3:]
    if values[0] > 0 and max(end / near, near / end) > 1.5:
        decades = math.log10(end / far)
        if abs(decades - round(decades)) < 0.01:
            further = [value * (end / far) for value in (near, end)]
        else:
            further = [end * (end / near) ** count for count in (1, 2)]
    else:
        further = [end + count * (end - near) for count in (1, 2)]
    # Of 512, which comes after 128 and 256, two digits are another width.
    further = [round(value) if is_whole else _shorter(value) for value in further]
    # Where all were positive, what is not may be out of range.
    return [value for value in further if value > 0 or values[0] <= 0]


def _between(values: Sequence[float], place: int) -> list[float]:
    """A value between two neighbours, and what lies halfway to them."""
    low, at, high = values[place - 1 : place + 2]
    if low > 0:
        return [_shorter(math.sqrt(low * at)), at, _shorter(math.sqrt(at * high))]
    return [_shorter((low + at) / 2), at, _shorter((at + high) / 2)]


def _shorter(value: float) -> float:
    return float(f"{value:.2g}")


def _counted(names: Sequence[str]) -> str:
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{name} {count}" for name, count in counts.items())
