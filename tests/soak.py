"""Signals at random moments of a sweep, by hand: how it ends, and what a resume gives.

    python tests/soak.py [--moments 50] [--seed 0] [--draws 40] [--steps 4000] [--small]
                         [--signals SIGKILL] [--also --search tpe]

Each signal is sent at that many moments, uniform over the time that the command takes
alone. Where one has ended a run, the next run goes on in the same directory; one that
comes to its end is compared with the uninterrupted one. CI has the moments that count,
one by one, in test_signals.py. What follows --also is the command's: a search, a
stopping rule.
"""

import argparse
import collections
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}
# Only so that nothing waits for ever.
GUARD_SECONDS = 300


def command(options, out):
    words = ["sweep", "signal_worker:trial" if options.small else "digits"]
    words += ["--metric", "loss", "--mode", "min"] if options.small else []
    words += ["--optimizers", "adam", "adabound"]
    words += ["--space", "learning_rate=log(1e-4,1)", "--seeds", "2"]
    words += ["--draws", str(options.draws), "--steps", str(options.steps)]
    # The strategy must not depend on what else the machine does.
    words += ["--strategy", "map", "--checkpoint-seconds", "1", "--out", str(out)]
    words += options.also
    return [sys.executable, "-m", "optjax", *words]


def start(options, out):
    return subprocess.Popen(
        command(options, out),
        cwd=Path(__file__).parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # In the background a shell has SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def tables(out):
    # How large a call is depends on the time, and the order of the curves' lines on it.
    curves = (out / "curves.csv").read_bytes()
    return (out / "results.csv").read_bytes(), sorted(curves.splitlines())


class Soak:
    """One signal's moments, and what became of them."""

    def __init__(self, name, options, whole, work):
        self.name, self.options, self.whole, self.work = name, options, whole, work
        self.statuses = collections.Counter()
        self.seconds = []
        self.wrong = []
        self.compared = 0
        self.equal = 0

    def run(self, moments):
        out = self.work / self.name
        for number, moment in enumerate(moments, 1):
            if self.interrupt(out, moment):
                self.compare(out)
            print(f"{self.name} {number}/{len(moments)} {dict(self.statuses)}")
        if out.exists():
            while self.interrupt(out, None) is False:
                pass
            self.compare(out)

    def interrupt(self, out, moment):
        """Whether the run came to its end."""
        process = start(self.options, out)
        try:
            _, errors = process.communicate(timeout=moment or GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            began = time.monotonic()
            process.send_signal(getattr(signal, self.name))
            _, errors = process.communicate(timeout=GUARD_SECONDS)
            if process.returncode:
                self.seconds.append(time.monotonic() - began)
        self.statuses[process.returncode] += 1
        if process.returncode == 0:
            return True
        if errors and "optjax" not in errors:
            # Python itself was starting, which is before anything of ours.
            return False
        # Lines of progress begin with what was trained, and ours with our name.
        ours = [line for line in errors.splitlines() if "optjax" in line]
        says = [line.startswith("optjax: ") for line in ours]
        expected = [] if self.name == "SIGKILL" else [True]
        if (
            process.returncode != SIGNALS[self.name]
            or says != expected
            or "Traceback" in errors
        ):
            self.wrong.append((moment, process.returncode, errors))
            print(f"  WRONG at {moment:.2f} s: {process.returncode}\n{errors}")
        return False

    def compare(self, out):
        self.compared += 1
        self.equal += tables(out) == self.whole
        shutil.rmtree(out)

    def row(self):
        ended = sorted(self.seconds) or [0.0]
        statuses = ", ".join(f"{n} x {s}" for s, n in sorted(self.statuses.items()))
        return (
            f"{self.name:8} {len(self.seconds):7} {statuses:28} "
            f"{ended[len(ended) // 2]:6.2f} {ended[-1]:6.2f}  "
            f"{self.equal} of {self.compared:<3}  {len(self.wrong)}"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--small", action="store_true", help="a quadratic, no digits")
    parser.add_argument("--signals", nargs="+", default=list(SIGNALS))
    parser.add_argument("--also", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    with tempfile.TemporaryDirectory() as work:
        began = time.monotonic()
        whole = start(options, Path(work) / "whole")
        _, errors = whole.communicate()
        assert whole.returncode == 0, errors
        takes = time.monotonic() - began
        print(f"uninterrupted: {takes:.1f} s")
        rng = random.Random(options.seed)
        soaks = []
        for name in options.signals:
            soak = Soak(name, options, tables(Path(work) / "whole"), Path(work))
            soak.run([rng.uniform(0.2, takes) for _ in range(options.moments)])
            soaks.append(soak)
    print(
        "signal   moments statuses of all runs          median   most  equal     wrong"
    )
    for soak in soaks:
        print(soak.row())
    sys.exit(any(soak.wrong or soak.equal < soak.compared for soak in soaks))


if __name__ == "__main__":
    main()
