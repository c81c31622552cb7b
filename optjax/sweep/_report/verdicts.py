"""All verdicts of a sweep, what is to be acted on before what is to be known."""

from optjax._page.parts import Verdict
from optjax.sweep._report.budget import band_at_the_end, improving, stopped_leader
from optjax.sweep._report.importance import importance
from optjax.sweep._report.span import diverged, edge, failed, flat
from optjax.sweep._report.study import Study
from optjax.sweep._report.winner import winner

_AFTER_THE_WINNER = (
    failed,
    edge,
    improving,
    stopped_leader,
    diverged,
    importance,
    flat,
    band_at_the_end,
)
_ORDER = ("warning", "note", "good")


def verdicts(study: Study) -> list[Verdict]:
    """Who won, and then warnings and notes."""
    rest = [verdict for find in _AFTER_THE_WINNER for verdict in find(study)]
    return [*winner(study), *sorted(rest, key=lambda v: _ORDER.index(v.level))]
