"""A sweep's directory that was changed: refused in one line, or made whole again.

The programs of these sweeps are NumPy, so that hundreds of directories are opened,
replayed and finished in seconds.
"""

import dataclasses
import json
import re
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import count_in_numpy

from optjax import sweep
from optjax.sweep._report.profile import profile_page
from optjax.sweep._store import sealed
from optjax.sweep._store.sealed import read_sealed, write_sealed
from optjax.sweep._store.store import Store

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

SPACE = {"optimizer": ["sgd", "adam"], "learning_rate": [0.1, 0.3, 1e9]}
KEYWORDS = {
    "steps": 6,
    "evaluate_every": 1,
    "metric": "loss",
    "mode": "min",
    "seeds": 1,
    "strategy": "map",
    "lanes": 2,
    "call_seconds": 0.0,
    "checkpoint_seconds": 0.0,
}


def init(key, optimizer):
    x = jnp.ones(2)
    return x, optimizer.init(x)


def step(state, optimizer):
    x, opt_state = state
    updates, opt_state = optimizer.update(x, opt_state, x)
    return (x + updates, opt_state), {"loss": jnp.sum(x**2)}


@pytest.fixture(scope="module", autouse=True)
def no_compilation():
    with pytest.MonkeyPatch.context() as patch:
        count_in_numpy(patch)
        yield


class Enough(Exception):
    """Ends a sweep where no handler is."""


def run(out, calls=None):
    def progress(status):
        seen.append(status)
        if calls is not None and len(seen) > calls + 1:
            raise Enough

    seen = []
    return sweep.run((init, step), SPACE, out=out, progress=progress, **KEYWORDS)


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        # Nothing depends on the times, which are others each time.
        if path.is_file() and path.name not in ("lock", "times.json")
    }


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Directories: of a finished sweep, and of an interrupted one.

    That is in its second optimizer, with lanes saved and a row beyond the last point.
    """
    directory = tmp_path_factory.mktemp("damage")
    run(directory / "finished")
    with pytest.raises(Enough):
        run(directory / "interrupted", calls=18)
    return directory


@pytest.fixture
def finished(kinds, tmp_path):
    return shutil.copytree(kinds / "finished", tmp_path / "finished")


@pytest.fixture
def interrupted(kinds, tmp_path):
    return shutil.copytree(kinds / "interrupted", tmp_path / "interrupted")


def test_the_directories_are_what_the_tests_want(finished, interrupted):
    assert set(contents(finished)) == {
        "curves.csv",
        "results.csv",
        "sweep/progress.json",
        "sweep/sweep.json",
    }
    rows = contents(finished)["results.csv"].decode()
    assert rows.count("diverged") == 2
    assert rows.count("finished") == 4
    progress = read_sealed(interrupted / "sweep" / "progress.json")
    (states,) = progress["states"]
    assert progress["groups"] == 1
    assert progress["calls"] > 0
    assert set(contents(interrupted)) == {
        "curves.csv",
        "sweep/progress.json",
        "sweep/sweep.json",
        f"sweep/states/{states}",
    }
    assert len(contents(interrupted)["curves.csv"]) > progress["curves_bytes"]


def test_a_page_says_of_how_many_trials_it_is(finished, interrupted):
    def lead(directory):
        out = directory.parent / "page.html"
        sweep.SweepResult.load(directory).report(out)
        return re.findall(r"<p>(.*?)</p>", out.read_text("utf-8"), re.DOTALL)[:2]

    ended = len(sweep.SweepResult.load(interrupted).records)
    assert 0 < ended < 6
    said, counted = lead(interrupted)
    assert said == "Not finished: this is of the trials that have ended."
    assert counted.startswith(f"{ended} of 6 trials, ")
    # Two that diverged ended earlier.
    assert lead(finished)[0].startswith("6 trials, ")
    assert "at most 6 updates each" in lead(finished)[0]
    assert "unfinished" not in sweep.SweepResult.load(finished).about
    whole = sweep.SweepResult.load(finished)
    part = dataclasses.replace(whole, about={**whole.about, "unfinished": 1})
    lead_of_both = profile_page({"finished": whole, "interrupted": part}).lead
    assert lead_of_both[1:] == ["Not finished: interrupted."]


@pytest.mark.parametrize("damage", [None, b"", b"[]", b'{"of": {"sgd": [1.0, 2]}}'])
def test_without_its_times_a_sweep_is_the_same(damage, finished, interrupted):
    whole = contents(finished)
    assert set(sweep.SweepResult.load(finished).seconds) == {"sgd", "adam"}
    place(interrupted, "sweep/times.json", damage)
    assert sweep.SweepResult.load(interrupted).seconds == {}
    assert set(run(interrupted).seconds) <= {"sgd", "adam"}
    assert contents(interrupted) == whole


def damages(name, data, every=1):
    """Changed contents by what was done; None for no file."""
    middle = len(data) // 2
    yield "deleted", None
    yield "garbage", bytes(range(256)) * 3
    yield "a brace", b"{"
    yield "no JSON object", b"[]"
    yield "nested", b"[" * 100_000
    yield "twice", data + data
    yield "zeros in it", data[:middle] + bytes(16) + data[middle + 16 :]
    for length in range(0, len(data), every):
        yield f"cut to {length}", data[:length]
    for at in range(0, len(data), every):
        flipped = bytes([data[at] ^ (1 << at % 8)])
        yield f"bit at {at}", data[:at] + flipped + data[at + 1 :]
    if name.endswith(".csv"):
        lines = data.splitlines(keepends=True)
        swapped = [*lines[:2], lines[3], lines[2], *lines[4:]]
        yield "rows swapped", b"".join(swapped)
        yield "a row less", b"".join(lines[:2] + lines[3:])
        yield "other line ends", data.replace(b"\n", b"\r\n")


def damaged(directory, every):
    for name, data in contents(directory).items():
        for what, changed in damages(name, data, every):
            yield name, what, changed


def place(directory, name, changed):
    if changed is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(changed)


@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_damage_is_refused_in_one_line_or_mended(state, request, finished, tmp_path):
    """Every damage, some bytes: the whole sweep."""
    whole = contents(finished)
    directory = request.getfixturevalue(state)
    refused, mended = set(), set()
    for name, what, changed in damaged(directory, every=23):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(directory, out)
        place(out, name, changed)
        before = contents(out)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                run(out)
        except sweep.SweepError as error:
            (line,) = str(error).splitlines()
            assert name.rpartition("/")[2] in line, (name, what, line)
            assert "choose another out=" in line, (name, what, line)
            # Nothing is overwritten.
            assert contents(out) == before, (name, what)
            refused.add(name)
        else:
            after = contents(out)
            for table in ("results.csv", "curves.csv"):
                assert after[table] == whole[table], (name, what)
            mended.add(name)
    names = set(contents(directory))
    tables = {"results.csv", "curves.csv"}
    states = {name for name in names if "states" in name}
    assert {"curves.csv", "sweep/progress.json", "sweep/sweep.json"} <= refused
    assert not refused & (states | {"results.csv"})
    # Bytes beyond the last point; white space at the end.
    assert mended <= states | tables | {"sweep/progress.json", "sweep/sweep.json"}
    assert (names & {"results.csv"}) | states <= mended


@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_every_byte_is_under_a_digest(state, request):
    """Every damage, every byte: what a sweep would go on from."""
    directory = request.getfixturevalue(state)

    def opened():
        try:
            with Store(directory) as store, warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                progress = store.open(description, ["loss"])
                blocks = store.replay()
                return progress, [(n, rows.tobytes()) for n, rows in blocks]
        except sweep.SweepError as error:
            return str(error)

    description = read_sealed(directory / "sweep" / "sweep.json")
    usual = opened()
    # Without what a crash had left.
    whole = contents(directory)
    rolled_back = None
    if usual[0].states:
        shutil.rmtree(directory / "sweep" / "states")
        rolled_back = opened()
        assert rolled_back[0].calls == 0
        assert rolled_back[0].curves_bytes == usual[0].group_bytes
        (directory / "sweep" / "states").mkdir()
    seen, found = set(), None
    for name, data in whole.items():
        # What is made of the rest anyway.
        if name == "results.csv":
            continue
        # sweep.json is read as progress.json is.
        every = 19 if name == "sweep/sweep.json" else 1
        for what, changed in damages(name, data, every):
            if found in (None, rolled_back):
                for other, right in whole.items():
                    place(directory, other, right)
            place(directory, name, changed)
            found = opened()
            if isinstance(found, str):
                assert name.rpartition("/")[2] in found, (name, what)
                seen.add(name)
            elif "states" in name:
                assert found == rolled_back, what
                seen.add(name)
            else:
                assert found == usual, (name, what)
                # Nothing but the line's end is missing, or more is there.
                assert changed is not None
                assert changed == data[:-1] or len(changed) > len(data)
            place(directory, name, data)
    assert seen == {name for name in whole if name != "results.csv"}


def test_other_files_stay_and_do_not_matter(finished, interrupted):
    whole = contents(finished)
    names = ["note.txt", "states-of-the-art/x", "sweep/states/mine", "sweep/x.json"]
    for name in names:
        path = interrupted / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xff\x00")
    run(interrupted)
    after = contents(interrupted)
    for name in names:
        assert after.pop(name) == b"\xff\x00"
    assert after == whole


def test_damaged_lanes_are_said_and_measured_again(finished, interrupted):
    (states,) = (interrupted / "sweep" / "states").iterdir()
    states.write_bytes(states.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"is damaged: .*begins again"):
        run(interrupted)
    assert contents(interrupted) == contents(finished)


def test_it_goes_on_from_every_call(finished, tmp_path):
    whole = contents(finished)
    for calls in range(40):
        out = tmp_path / str(calls)
        try:
            run(out, calls)
        except Enough:
            run(out)
        else:
            break
        assert contents(out) == whole
    assert calls > 15


# ------------------------------------------------------------- whose a directory is


@pytest.mark.parametrize("name", ["results.csv", "curves.csv", "states-x/a", "z.md"])
def test_somebody_elses_files_are_refused_and_stay(name, tmp_path):
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    (out / ".hidden").write_text("")
    with pytest.raises(sweep.SweepError) as caught:
        run(out)
    (line,) = str(caught.value).splitlines()
    assert f"{out} must be empty, or hold this" in line
    assert f"has {name.partition('/')[0]} and no sweep/progress.json" in line
    assert contents(out) == {name: b"mine", ".hidden": b""}
    assert not (out / "sweep").exists()


def test_somebody_elses_directory_called_sweep_is_refused_and_stays(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "broom.txt").write_text("mine")
    with pytest.raises(sweep.SweepError, match=r"has broom.txt and no progress.json"):
        run(tmp_path)
    assert contents(tmp_path) == {"sweep/broom.txt": b"mine"}


def test_hidden_files_and_an_empty_directory_are_no_hindrance(finished, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".gitignore").write_text("*")
    run(out)
    after = contents(out)
    assert after.pop(".gitignore") == b"*"
    assert after == contents(finished)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("", "which is not empty and has no NUL, got ''"),
        ("a\0b", r"which is not empty and has no NUL, got 'a\\x00b'"),
        (b"bytes", "must be None or the path of a directory"),
        (7, "must be None or the path of a directory, got 7"),
    ],
)
def test_an_out_that_is_no_path_is_refused(out, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sweep.SweepError, match=message):
        run(out)
    assert list(tmp_path.iterdir()) == []


def test_an_out_that_is_a_file_or_below_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(sweep.SweepError, match="cannot write to the directory"):
            run(out)
    assert contents(tmp_path) == {"file": b"mine"}


# -------------------------------------------------------------------- who else writes


def test_a_deleted_lock_is_noticed_before_the_next_write(finished, tmp_path):
    """A second process gets in, and ends what the first one has begun."""
    out = tmp_path / "out"

    def let_another_in(status):
        if status.done and not inside:
            inside.append(None)
            (out / "sweep" / "lock").unlink()
            run(out)

    inside = []
    with pytest.raises(sweep.SweepError, match="lock was deleted while this sweep"):
        sweep.run((init, step), SPACE, out=out, progress=let_another_in, **KEYWORDS)
    assert contents(out) == contents(finished)


def test_a_directory_that_is_replaced_is_noticed(finished, tmp_path):
    out = tmp_path / "out"

    def replace(status):
        if status.done > 3 and not inside:
            inside.append(None)
            out.rename(tmp_path / "old")
            run(out)

    inside = []
    with pytest.raises(sweep.SweepError, match="lock was deleted while this sweep"):
        sweep.run((init, step), SPACE, out=out, progress=replace, **KEYWORDS)
    assert contents(out) == contents(finished)


def test_another_writer_of_the_curves_is_noticed(tmp_path):
    def meddle(status):
        if status.done:
            with (tmp_path / "curves.csv").open("a") as file:
                file.write("0,sgd,0,1,0.5\n")

    with pytest.raises(sweep.SweepError, match=r"curves.csv was changed by something"):
        sweep.run((init, step), SPACE, out=tmp_path, progress=meddle, **KEYWORDS)
    whole = run(None)
    assert repr(run(tmp_path).records) == repr(whole.records)


def test_the_lanes_of_any_dtype_come_back(tmp_path):
    from optjax.sweep._store.states import read_lanes, write_lanes

    lanes = [
        jnp.arange(12).reshape(3, 4).astype(dtype)
        for dtype in (jnp.float32, jnp.bfloat16, jnp.float8_e4m3fn, jnp.int8, bool)
    ]
    path = tmp_path / "lanes"
    write_lanes(path, {"calls": 1}, lanes)
    for was, is_ in zip(lanes, read_lanes([path], {"calls": 1}, lanes), strict=True):
        assert was.dtype == is_.dtype
        np.testing.assert_array_equal(np.asarray(was), np.asarray(is_))
    for about, like in (({"calls": 2}, lanes), ({"calls": 1}, lanes[:2])):
        with pytest.raises(sweep.SweepError, match="is damaged: it"):
            read_lanes([path], about, like)
    assert jax.tree.structure(lanes)


def test_a_sealed_file_is_read_as_it_was_given(tmp_path, monkeypatch):
    """In the order of its keys too, whatever is between them; the seal is of a text."""
    monkeypatch.setattr(sealed, "_BLOCK", 2)
    data = {"of": [[n, {"y": n, "x": (0.5, None)}] for n in range(5)], "at": {1: "}"}}
    write_sealed(tmp_path / "file", data)
    plain = {
        "of": [[n, {"y": n, "x": [0.5, None]}] for n in range(5)],
        "at": {"1": "}"},
    }
    read = read_sealed(tmp_path / "file")
    assert read == plain
    assert list(read["of"][0][1]) == ["y", "x"]
    seal = sealed.digest()
    seal.update(json.dumps(plain, sort_keys=True).encode())
    said = json.loads((tmp_path / "file").read_text())
    assert said == {**plain, "digest": seal.hexdigest()}
    (tmp_path / "file").write_text(json.dumps(said, indent=1))
    assert read_sealed(tmp_path / "file") == plain
