"""Verdicts on who won, and whether the seeds say so."""

import math

from optjax._page.parts import Verdict
from optjax.sweep._ranking import Best
from optjax.sweep._records import FAILED
from optjax.sweep._report.apart import LEVEL, probability, seeds_needed
from optjax.sweep._report.study import Study, is_whole, named

#: The kind of what more seeds would tell.
SEEDS = "seeds"

# A rule stops trials and not configurations.
_AGAIN = "Train the first few again with several seeds and without a stopping rule."


def winner(study: Study) -> list[Verdict]:
    """Who is first, who shares the place, and who is not told apart."""
    best = study.best
    if math.isinf(best.median):
        return [_all_lost(study)]
    if len(study.contenders) == 1:
        says = f"{named(best.config)} was tried alone."
        return [Verdict("winner", "note", says, _score(study, best))]
    tied = [b for b in study.contenders[1:] if b.median == best.median]
    close = [b for b in study.alike if b.median != best.median]
    verdicts = []
    if tied:
        verdicts.append(_tie(study, [best, *tied]))
    if study.seeds == 1:
        verdicts.append(_one_seed(study))
    elif not (is_whole(best) and study.rivals):
        verdicts.append(_cut(study))
    elif close:
        verdicts.append(_not_told(study, close))
    elif not tied:
        verdicts.append(_won(study))
    return verdicts


def _all_lost(study: Study) -> Verdict:
    lost = study.ranking.records
    failed = any(record.status == FAILED for record in lost)
    others, allow = study.lost_by_others, "in allow_nan= of sweep.run what may be"
    remedy = "Take smaller learning rates, such as a tenth of the smallest."
    is_sound = bool(others) and study.is_known_sound
    if is_sound:
        remedy = f"Name {allow} NaN or infinite."
    elif others:
        remedy += f" Or name {allow} NaN or infinite in a sound training."
    return Verdict(
        "lost",
        "warning",
        f"Every configuration diverged{' or failed' * failed} with half of its seeds "
        f"or more. {others}".rstrip(),
        f"{len(lost)} trials, none with a median to rank. {remedy}",
        "" if is_sound else _smaller(study),
    )


def _smaller(study: Study) -> str:
    tried = study.tried("learning_rate", study.best.config.optimizer)
    if not tried or not tried[0] > 0:
        return ""
    rates = [float(f"{tried[0] / 10**decades:.2g}") for decades in (3, 2, 1)]
    return study.again({"learning_rate": rates})


def _score(study: Study, best: Best) -> str:
    metric, count = study.ranking.label, len(best.records)
    if count == 1:
        return f"{metric} {study.score(best.median)}, one seed."
    low, high = sorted((best.low, best.high))
    ends = f"{study.score(low)} to {study.score(high)}"
    return f"{metric} {study.score(best.median)}, median of {count} seeds ({ends})."


def _tie(study: Study, tied: list[Best]) -> Verdict:
    names = [_name(study, best) for best in tied]
    return Verdict(
        "tie",
        "note",
        f"{len(tied)} tie for the first place: {_listed(names, most=24)}.",
        f"All have the median {study.score(study.best.median)} "
        f"({study.ranking.label}). {_name(study, study.best)} stands first by the rule "
        "for ties: the larger plateau, the better worst seed, the first tried.",
    )


def _one_seed(study: Study) -> Verdict:
    return Verdict(
        SEEDS,
        "warning",
        "One seed says nothing of chance: no two can be told apart.",
        f"{_score(study, study.best)} {_AGAIN if study.stops else ''}".rstrip(),
        "" if study.stops else study.again(seeds=5, grows=True),
    )


def _cut(study: Study) -> Verdict:
    """The first, or all others, went to different lengths from seed to seed."""
    whole = is_whole(study.best)
    whose = "every other" if whole else "it too"
    return Verdict(
        SEEDS,
        "warning",
        f"{_name(study, study.best)} is first, but the rule stopped trials of {whose}: "
        "the seeds do not compare what was trained for other numbers of updates.",
        f"{_score(study, study.best)} {_AGAIN}",
    )


def _left_out(study: Study) -> str:
    """What is not compared, in words; "" where all is."""
    count = len(study.contenders) - 1 - len(study.rivals)
    many = count > 1
    return (
        f" Not compared {'are' if many else 'is'} {count} other{'s' * many} of which "
        "the rule stopped trials."
        if count
        else ""
    )


def _not_told(study: Study, close: list[Best]) -> Verdict:
    second = close[0]
    pair = study.sample(study.best), study.sample(second)
    chance = probability(*pair, study.groups)
    needed = seeds_needed(*pair, study.groups)
    said = (
        f"About {needed} seeds would tell the first two apart, if their means and "
        "spreads are what they seem."
        if needed is not None
        else "More than 1,000 seeds would be needed to tell the first two apart: take "
        "either."
    )
    names = _listed([_name(study, best) for best in close], most=6)
    return Verdict(
        SEEDS,
        "warning",
        f"{_name(study, study.best)} is first, but {study.seeds} seeds do not tell it "
        f"from {names}.",
        f"{_score(study, study.best)} {_name(study, second)}: "
        f"{study.score(second.median)}. Games and Howell's test: chance makes a "
        f"difference as large with p = {chance:.2g} "
        f"(told apart below {LEVEL:g}). {said}{_left_out(study)}",
        # The rule would stop some of the new ones too.
        "" if needed is None or study.stops else study.again(seeds=needed, grows=True),
    )


def _won(study: Study) -> Verdict:
    second = study.rivals[0]
    chance = probability(study.sample(study.best), study.sample(second), study.groups)
    return Verdict(
        "winner",
        "good",
        f"{_name(study, study.best)} is best, by more than chance.",
        f"{_score(study, study.best)} The next, {_name(study, second)}, has "
        f"{study.score(second.median)}; Games and Howell's test over the seeds: "
        f"p = {chance:.2g} (told apart below {LEVEL:g}).{_left_out(study)}",
    )


def _name(study: Study, best: Best) -> str:
    return best.config.optimizer if len(study.standings) > 1 else named(best.config)


def _listed(names: list[str], most: int) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} others"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
