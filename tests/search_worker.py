"""A small search in a process of its own, which can be told where to die.

python search_worker.py OUT SAMPLER [POINT COUNT]
"""

import sys

from sweep_worker import die_at, init, step

from optjax import sweep

KEYWORDS = {
    "steps": 30,
    "evaluate_every": 10,
    "metric": "loss",
    "mode": "min",
    "seeds": 2,
    "strategy": "map",
    "progress": False,
}
SPACE = {"optimizer": "adam", "learning_rate": sweep.log_uniform(1e-3, 1e1)}


def main(out, sampler, *dying, draws=12):
    if dying:
        die_at(dying[0], int(dying[1]))
    return sweep.run(
        (init, step),
        SPACE,
        search=sweep.Optuna(sampler, batch=4),
        draws=draws,
        out=out,
        checkpoint_seconds=0.0,
        **KEYWORDS,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
