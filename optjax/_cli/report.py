"""`optjax report`: one page that says what came of a sweep or a race."""

from collections.abc import Sequence
from pathlib import Path

from optjax._cli.options import ReportOptions
from optjax._cli.words import parse
from optjax.sweep import SweepResult
from optjax.sweep._errors import SweepError

__all__ = ["run_report"]

_HELP = """\
Write one HTML page that says what came of a sweep or a race.

  Verdicts in words, each with its evidence and what to run next; pictures to
  point at; all trials, to sort and to filter. One file that needs no other and
  no network. A race or a sweep writes it by itself when it ends.

Examples:
  optjax report runs/race-digits-1
  optjax report runs/mine --out mine.html
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
    result = SweepResult.load(directory)
    try:
        result.report(out)
    except OSError as error:
        raise SweepError(f"cannot write {out}: {error.strerror or error}") from None
    print(out)
    return 0
