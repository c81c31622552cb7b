"""A sweep's page: what is on it, and the file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optjax._page.parts import Page, Verdict
from optjax._page.render import render
from optjax.sweep._ranking import Ranking
from optjax.sweep._report.pictures import pictures, trials
from optjax.sweep._report.study import Study
from optjax.sweep._report.target import to_target
from optjax.sweep._store.files import write_atomically


def page_of(
    study: Study, verdicts: Sequence[Verdict], about: Mapping[str, Any]
) -> Page:
    """The page of the trials that have ended, at least one."""
    ranking = study.ranking
    return Page(
        title=_title(ranking, str(about.get("task", ""))),
        lead=_lead(ranking, about),
        code=study.best.code,
        verdicts=verdicts,
        pictures=pictures(study),
        tables=to_target(ranking),
        trials=trials(study),
    )


def write_page(
    study: Study, verdicts: Sequence[Verdict], about: Mapping[str, Any], path: Path
) -> None:
    """Write it; the file is there whole or not at all."""
    text = render(page_of(study, verdicts, about))
    write_atomically(path, lambda to: to.write_text(text, encoding="utf-8"))


def _title(ranking: Ranking, task: str) -> str:
    if ranking.command:
        _, kind, *_ = ranking.command
        return f"{kind}: {task}"
    return f"{task or 'A sweep'}: {ranking.label}"


def _lead(ranking: Ranking, about: Mapping[str, Any]) -> list[str]:
    records = ranking.records
    seeds = {record.trial.seed for record in records}
    configs, names = len(ranking.configurations()), ranking.optimizers
    better = "higher" if ranking.mode == "max" else "lower"
    most, least = (f(record.steps for record in records) for f in (max, min))
    lacking = about.get("unfinished", 0)
    of_all = f" of {len(records) + lacking:,}" if lacking else ""
    counts = [
        f"{len(records):,}{of_all} trials",
        f"{len(names)} optimizer{'s' * (len(names) > 1)}",
        f"{configs:,} configuration{'s' * (configs > 1)}",
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)}",
        f"{most:,} updates each" if most == least else f"at most {most:,} updates each",
    ]
    lines = [f"{', '.join(counts)}; {ranking.label}, {better} is better."]
    if lacking:
        lines.insert(0, "Not finished: this is of the trials that have ended.")
    if "recipe" in about:
        lines.append(f"{about['recipe']}")
    return lines
