"""`optjax list`: the table of the optimizers."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from optjax._cli.words import parse
from optjax.sweep._rows import ROWS

_HELP = """\
Print the table of the optimizers, in order of increasing complexity, and then those
that installed packages add."""


def run_list(words: Sequence[str]) -> None:
    """Print it, without the schedule where the terminal is narrow.

    Raises:
      UsageError: for any argument.
      SweepError: where a package's row cannot be imported.
    """
    parse(lambda: None, words, "optjax list", _HELP)
    console = Console()
    wide = console.width >= 110
    table = Table(
        title=Text("x[t+1] = x[t] − s_t · V_t ⊙ m_t"),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1 if wide else 0),
    )
    table.add_column("row", no_wrap=True)
    table.add_column("direction m", overflow="fold")
    table.add_column("rate V", overflow="fold")
    table.add_column("bound", no_wrap=True)
    if wide:
        table.add_column("schedule s", no_wrap=True)
    table.add_column("paper", overflow="fold")
    for name, row in ROWS.items():
        schedule = [row.schedule] if wide else []
        cells = [name, row.direction, row.rate, row.bound, *schedule, row.paper]
        table.add_row(*map(Text, cells))
    console.print(table)
