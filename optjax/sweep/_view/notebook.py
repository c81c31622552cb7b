"""A sweep as a notebook shows it: verdicts, the ranking, one picture."""

import base64
import html
import importlib.util
import io
from collections.abc import Sequence

from optjax._page.parts import Verdict
from optjax.sweep._ranking import Ranking, numeric
from optjax.sweep._view.table import as_html


def as_notebook(ranking: Ranking, verdicts: Sequence[Verdict]) -> str:
    """HTML without scripts, whose picture is in it."""
    said = "".join(
        f"<li><b>{html.escape(verdict.says)}</b><br>{html.escape(verdict.evidence)}"
        + f"<pre>{html.escape(verdict.next)}</pre>" * bool(verdict.next)
        + "</li>"
        for verdict in verdicts
    )
    return f"<ul>{said}</ul>{as_html(ranking)}{_picture(ranking)}"


def _picture(ranking: Ranking) -> str:
    """The sensitivity to the learning rate, where somebody can draw it."""
    rates = {numeric(r.trial.config, "learning_rate") for r in ranking.records} - {None}
    if len(rates) < 2 or importlib.util.find_spec("matplotlib") is None:
        return ""
    from optjax.sweep._view.plots import plot_sensitivity

    page = io.BytesIO()
    # Without the version of the library that drew it.
    plot_sensitivity(ranking).savefig(page, dpi=100, metadata={"Software": None})
    data = base64.b64encode(page.getvalue()).decode()
    words = "Sensitivity to the learning rate"
    return f'<img alt="{words}" src="data:image/png;base64,{data}">'
