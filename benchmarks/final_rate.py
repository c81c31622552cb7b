"""AdaBound around a measured rate against one around a tuned rate.

    python benchmarks/final_rate.py --data DIR --text FILE --out RUNS
    python benchmarks/final_rate.py --draw

carries out the protocol of docs/final-rate.md: three tasks, ten rows, all learning
rates. It writes docs/figures/final_rate.csv, and draws from it final_rate.png beside it
and the tables of the page. A run goes on from RUNS, and takes the tasks of `--only`.
"""

import argparse
import csv
import functools
import math
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import optjax
from optjax import sweep
from optjax.tasks import digits
from optjax.tasks._data.images import load_images
from optjax.tasks._data.text import load_text
from optjax.tasks.models._layers import convolution

DOCS = Path(__file__).parent.parent / "docs"
CSV = DOCS / "figures" / "final_rate.csv"
PAGE = DOCS / "final-rate.md"

RATES = [float(f"{10 ** (-4 + i / 2):.3g}") for i in range(7)]
FINAL_RATES = [0.01, 0.1, 1.0, 10.0]
CONTEXT, EMBEDDING, HIDDEN = 8, 16, 128


class Task(NamedTuple):
    """What is trained, for how long, and the loss of guessing."""

    make_trial: object
    steps: int
    seeds: int
    guessing: float
    without: tuple[str, ...] = ()


def projected(learning_rate, gamma):
    """`graftbound` around SWATS's estimate."""
    rate = optax.chain(
        optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.999, debias=False)),
        optjax.correct_bias(0.9, 0.999),
        optjax.bound_around(
            optjax.projected_target(), *optjax.hyperbolic_bounds(1.0, gamma)
        ),
    )
    return optjax.basic_form(optjax.ema(0.9, debias=False), rate, learning_rate)


def factories(steps):
    """The rows by name."""
    gamma = optjax.gamma_for(steps)
    late = functools.partial(optjax.graftbound, gamma=gamma)
    # As it was when the protocol was written.
    grafted = functools.partial(late, late=False)
    return {
        "adam": optjax.adam,
        "momentum": functools.partial(optjax.sgd, momentum=0.9),
        "adabound as it comes": optjax.adabound,
        "adabound": functools.partial(optjax.adabound, gamma=gamma),
        "graftbound": grafted,
        "graftbound late": late,
        "graftbound of all leaves": functools.partial(grafted, groups=0),
        "graftbound averaged": functools.partial(grafted, b3=0.9),
        "graftbound frozen": functools.partial(grafted, freeze_after=steps // 2),
        "projected": functools.partial(projected, gamma=gamma),
    }


def cross_entropy(logits, labels):
    """Mean of a batch."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def drawn(x, y, size):
    """`batch(key, step)`: rows at random."""

    def batch(key, step):
        rows = jax.random.randint(jax.random.fold_in(key, step), (size,), 0, len(x))
        return jnp.asarray(x)[rows], jnp.asarray(y)[rows]

    return batch


class NextCharacter(nnx.Module):
    """Eight characters to the logits of the next."""

    def __init__(self, characters, rngs):
        self.embedding = nnx.Embed(characters, EMBEDDING, rngs=rngs)
        self.hidden = nnx.Linear(CONTEXT * EMBEDDING, HIDDEN, rngs=rngs)
        self.logits = nnx.Linear(HIDDEN, characters, rngs=rngs)

    def __call__(self, ids):
        """Map (n, 8) to (n, characters)."""
        x = self.embedding(ids).reshape(len(ids), -1)
        return self.logits(nnx.relu(self.hidden(x)))


class Convolutions(nnx.Module):
    """Three 3×3 convolutions of stride 2, the mean over the pixels, and logits."""

    def __init__(self, rngs):
        widths = [3, 16, 32, 64]
        self.convolutions = nnx.List(
            convolution(i, o, 3, 2, jnp.float32, rngs) for i, o in pairwise(widths)
        )
        self.logits = nnx.Linear(widths[-1], 10, rngs=rngs)

    def __call__(self, x):
        """Map (n, 32, 32, 3) to (n, 10)."""
        for layer in self.convolutions:
            x = nnx.relu(layer(x))
        return self.logits(jnp.mean(x, (1, 2)))


def _digits(_):
    make = functools.partial(digits.trial, data=digits.load())
    return Task(make, steps=600, seeds=10, guessing=math.log(10))


def _characters(args):
    text = load_text(args.text)
    windows = np.lib.stride_tricks.sliding_window_view

    def examples(ids):
        return windows(ids, CONTEXT)[:-1].astype(np.int32), ids[CONTEXT:].astype(int)

    (x, y), (val_x, val_y) = examples(text.train), examples(text.validation)
    some = np.linspace(0, len(val_x) - 1, 8192).astype(int)
    val_x, val_y = val_x[some], val_y[some].astype(np.int32)
    trial = sweep.from_nnx(
        lambda rngs: NextCharacter(len(text.vocabulary), rngs),
        lambda logits, batch: cross_entropy(logits, batch[1]),
        drawn(x, y.astype(np.int32), 128),
        lambda predict: {"val_loss": cross_entropy(predict(val_x), val_y)},
    )
    return Task(trial, 1500, seeds=3, guessing=math.log(len(text.vocabulary)))


def _cifar10(args):
    images = load_images(args.data)

    def scaled(x):
        return (x.astype(np.float32) / 255 - 0.5) / 0.25

    x, y = scaled(images.train_x[:10_000]), images.train_y[:10_000]
    val_x, val_y = scaled(images.test_x[:2_000]), images.test_y[:2_000]
    trial = sweep.from_nnx(
        Convolutions,
        lambda logits, batch: cross_entropy(logits, batch[1]),
        drawn(x, y, 32),
        lambda predict: {"val_loss": cross_entropy(predict(val_x), val_y)},
    )
    without = "graftbound averaged", "graftbound frozen", "projected"
    return Task(trial, 400, seeds=3, guessing=math.log(10), without=without)


TASKS = {"digits": _digits, "characters": _characters, "CIFAR-10": _cifar10}


def measure(name, args):
    """A line for each trial: task, row, hyper-parameters, seed and loss."""
    task = TASKS[name](args)
    rows = {k: v for k, v in factories(task.steps).items() if k not in task.without}
    rates = {
        row: [10 * rate for rate in RATES] if row == "momentum" else RATES
        for row in rows
    }
    result = sweep.run(
        task.make_trial,
        {
            "optimizer": list(rows),
            "learning_rate": sweep.per_optimizer(**rates),
            "final_lr": sweep.only(FINAL_RATES, "adabound"),
        },
        steps=task.steps,
        evaluate_every=task.steps // 5,
        metric="val_loss",
        mode="min",
        seeds=task.seeds,
        factories=rows,
        out=Path(args.out) / name,
        # Without the timing run of "auto", which is longer here than it saves.
        strategy="map",
    )
    for record in result.records:
        config = record.trial.config
        losses = record.curve.values["val_loss"]
        loss = losses[-1] if record.status == sweep.FINISHED else math.nan
        yield {
            "task": name,
            "row": config.optimizer,
            "learning_rate": f"{config.hyper['learning_rate']:.3g}",
            "final_lr": f"{config.hyper.get('final_lr', math.nan):.3g}",
            "seed": record.trial.seed,
            "guessing": f"{task.guessing:.4f}",
            "loss": f"{loss:.5g}",
        }


def write_scores(lines):
    """Into the CSV, in place of those of the same tasks."""
    tasks = {line["task"] for line in lines}
    if CSV.exists():
        with CSV.open() as file:
            lines = [x for x in csv.DictReader(file) if x["task"] not in tasks] + lines
    lines.sort(key=lambda line: list(TASKS).index(line["task"]))
    with CSV.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def read_scores():
    """By task, row and (learning rate, final_lr) the losses of all seeds."""
    scores = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with CSV.open() as file:
        for line in csv.DictReader(file):
            loss, guessing = float(line["loss"]), float(line["guessing"])
            config = float(line["learning_rate"]), float(line["final_lr"])
            # By text, since NaN is not equal to itself.
            key = config if config[1] == config[1] else (config[0], None)
            capped = loss if loss < guessing else guessing
            scores[line["task"]][line["row"]][key].append(capped)
    return scores


def best(configs):
    """The configuration with the least mean."""
    return min(configs, key=lambda config: np.mean(configs[config]))


def expected_best(scores, k):
    """The expected least of k of them, drawn without putting back."""
    ordered, n = sorted(scores), len(scores)
    ways = [math.comb(n - 1 - i, k - 1) for i in range(n)]
    return sum(w * x for w, x in zip(ways, ordered, strict=True)) / math.comb(n, k)


def table(head, rows):
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(x):
    return f"{x:.3f}"


def sections(scores):
    """The tables, in Markdown."""
    for task, rows in scores.items():
        adams = best(rows["adam"])[0]
        tuned = rows["adabound"][best(rows["adabound"])]
        yield f"### {task}\n"
        at, final = best(rows["adabound"])
        yield (
            f"Adam's learning rate is {adams:g}; the best AdaBound of 28 has the "
            f"learning rate {at:g} and `final_lr` {final:g}.\n"
        )
        lines = []
        for row, configs in rows.items():
            here = best(configs)
            cells = [row, f"{here[0]:g}", _number(np.mean(configs[here]))]
            if row.startswith("graftbound") or row in ("adam", "projected"):
                mine = np.array(configs[adams, None])
                gap = mine - np.array(tuned)
                error = gap.std(ddof=1) / math.sqrt(len(gap))
                cells += [_number(mine.mean()), f"{gap.mean():+.3f} ± {error:.3f}"]
            else:
                cells += ["–", "–"]
            means = [np.mean(losses) for losses in configs.values()]
            cells += [_number(expected_best(means, k)) for k in (1, 2, 3, 5, 7)]
            lines.append(cells)
        head = ["row", "best at", "best", "at Adam's rate", "less AdaBound's best"]
        yield table([*head, *(f"of {k}" for k in (1, 2, 3, 5, 7))], lines) + "\n"
        head = ["row", *(f"{rate:g}" for rate in RATES)]
        lines = []
        for row, configs in rows.items():
            finals = sorted({final for _, final in configs}, key=lambda f: f or 0.0)
            for final in finals:
                found = [
                    np.mean(losses) for (_, f), losses in configs.items() if f == final
                ]
                name = row if final is None else f"{row}, `final_lr` {final:g}"
                if row == "momentum":
                    name += " (rates × 10)"
                lines.append([name, *map(_number, found)])
        yield table(head, lines) + "\n"


def draw(scores):
    """The losses over the learning rate, and the expected best of k trials."""
    import matplotlib.pyplot as plt

    # Okabe and Ito's palette, with a dash for each so that colour is not needed.
    styles = {
        "adam": ("#D55E00", "-"),
        "momentum": ("#0072B2", "-"),
        "adabound": ("#CC79A7", "-"),
        "adabound as it comes": ("#CC79A7", ":"),
        "graftbound": ("#000000", "-"),
        "graftbound of all leaves": ("#000000", "--"),
        "graftbound frozen": ("#009E73", "--"),
    }
    figure, axes = plt.subplots(
        2, len(scores), figsize=(4 * len(scores), 7), dpi=150, layout="constrained"
    )
    for column, (task, rows) in zip(axes.T, scores.items(), strict=True):
        for row, (colour, dash) in styles.items():
            if row not in rows:
                continue
            by_rate = defaultdict(list)
            for (rate, _), losses in rows[row].items():
                by_rate[rate].append(np.mean(losses))
            rates = sorted(by_rate)
            least = [min(by_rate[rate]) for rate in rates]
            name = f"{row}, best final_lr" if row == "adabound" else row
            column[0].plot(rates, least, dash, color=colour, marker=".", label=name)
            means = [np.mean(losses) for losses in rows[row].values()]
            ks = range(1, 8)
            column[1].plot(
                ks, [expected_best(means, k) for k in ks], dash, color=colour
            )
        column[0].set(title=task, xlabel="learning rate", xscale="log", yscale="log")
        column[1].set(xlabel="trials", yscale="log")
        for ax in column:
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("{x:.3g}")
            ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("validation loss")
    axes[1, 0].set_ylabel("expected best of so many trials")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=7, fontsize=7)
    figure.savefig(CSV.with_suffix(".png"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder with CIFAR-10")
    parser.add_argument("--text", help="a text in UTF-8")
    parser.add_argument("--out", help="a directory to go on from")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--draw", action="store_true", help="from the scores there are")
    args = parser.parse_args()
    if not args.draw:
        sweep.use_all_cores()
        for name in args.only:
            write_scores(list(measure(name, args)))
    scores = read_scores()
    draw(scores)
    before, _, rest = PAGE.read_text().partition("<!-- tables -->\n")
    after = rest.partition("<!-- end -->")[2]
    text = "\n".join(sections(scores))
    PAGE.write_text(f"{before}<!-- tables -->\n{text}<!-- end -->{after}")


if __name__ == "__main__":
    main()
