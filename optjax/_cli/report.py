"""`optjax report`: one page that says what came of a sweep or a race."""

from collections.abc import Sequence
from pathlib import Path

from optjax._cli.options import ReportOptions
from optjax._cli.words import parse
from optjax._page.render import render
from optjax.sweep import SweepResult
from optjax.sweep._errors import SweepError
from optjax.sweep._report.profile import profile_page
from optjax.sweep._store.store import MARKER

_HELP = """\
Write one HTML page that says what came of a sweep or a race.

  Verdicts in words, each with its evidence and what to run next; pictures to
  point at; all trials, to sort and to filter. One file that needs no other and
  no network. A race or a sweep writes it by itself when it ends.

  Where DIR holds the directories of several, the page compares the optimizers
  that all of them have, by performance profiles.

Examples:
  optjax report runs/race-digits-1
  optjax report runs/mine --out mine.html
  optjax report runs
"""


def run_report(words: Sequence[str]) -> int:
    """Write it, and return the exit status.

    Raises:
      UsageError: where the words cannot be read.
      SweepError: where the directory holds no result, or the page cannot be written.
    """
    options: ReportOptions = parse(ReportOptions, words, "optjax report", _HELP)
    directory = Path(options.directory)
    out = directory / "report.html" if options.out is None else Path(options.out)
    several = sorted(path.parents[1] for path in directory.glob(f"*/{MARKER}"))
    try:
        if (directory / MARKER).exists() or len(several) < 2:
            SweepResult.load(directory).report(out)
        else:
            page = profile_page({path.name: SweepResult.load(path) for path in several})
            out.write_text(render(page), encoding="utf-8")
    except OSError as error:
        raise SweepError(f"cannot write {out}: {error.strerror or error}") from None
    print(out)
    return 0
