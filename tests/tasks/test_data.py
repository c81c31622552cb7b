"""Data: every format gives the same arrays; what is damaged or missing is named."""

import io
import json
import os
import pickle
import struct
import sys
import tarfile
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from optjax.tasks._data import cache as cache_module
from optjax.tasks._data import images as images_module
from optjax.tasks._data import progress as progress_module
from optjax.tasks._data.images import DataError, Images, describe, load_images
from optjax.tasks._data.text import load_text

SIDE = 32
CLASSES = 10


def pixels(count, seed):
    shape = (count, SIDE, SIDE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


TRAIN_X, TEST_X = pixels(20, 0), pixels(10, 1)
TRAIN_Y = np.arange(20, dtype=np.int32) % CLASSES
TEST_Y = np.arange(10, dtype=np.int32)[::-1]


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        file, kind
    )
    return file.getvalue()


def table(x, y, image="img", label="label", classes=None):
    """A table in the Hugging Face schema; `x` are arrays, or bytes as they are."""
    rows = [
        {"bytes": i if isinstance(i, bytes | None) else encoded(i), "path": None}
        for i in x
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {image: pa.array(rows, kind), label: pa.array(list(y), pa.int64())}
    made = pa.table(columns)
    if classes is None:
        return made
    names = [str(i) for i in range(classes)]
    features = {label: {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return made.replace_schema_metadata(metadata)


def write_parquet(folder, train=None, test=None):
    """Write both parts, `train` or `test` in the place of the usual one."""
    folder.mkdir(parents=True, exist_ok=True)
    train = table(TRAIN_X, TRAIN_Y) if train is None else train
    test = table(TEST_X, TEST_Y) if test is None else test
    pq.write_table(train, folder / "train.parquet")
    pq.write_table(test, folder / "test.parquet")
    return folder


def rows_of(x):
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(len(x), -1)


def write_batches(folder, protocol=2):
    folder.mkdir(parents=True, exist_ok=True)
    parts = [(f"data_batch_{i + 1}", slice(4 * i, 4 * i + 4)) for i in range(5)]
    for name, part in parts:
        batch = {b"data": rows_of(TRAIN_X[part]), b"labels": TRAIN_Y[part].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    batch = {b"data": rows_of(TEST_X), b"labels": TEST_Y.tolist()}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol))
    return folder


def write_archive(path, folder):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "cifar-10-batches-py")
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def fails(cache):
    """Check that loading raises one DataError with all these words; return it."""

    def check(source, *words):
        with pytest.raises(DataError) as raised:
            load_images(source, cache)
        message = str(raised.value)
        for word in ("looked for", "found", *words):
            assert word in message
        assert "\n" not in message
        assert "uoft-cs/cifar10" in message
        assert "https://www.cs.toronto.edu/~kriz/cifar.html" in message
        return message

    return check


def assert_same(images):
    for got, expected in zip(
        images, (TRAIN_X, TRAIN_Y, TEST_X, TEST_Y, CLASSES), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    assert [a.dtype for a in images[:4]] == [np.uint8, np.int32, np.uint8, np.int32]
    assert isinstance(images, Images)
    assert isinstance(images.classes, int)


def test_parquet(tmp_path, cache):
    assert_same(load_images(write_parquet(tmp_path / "data"), cache))


@pytest.mark.parametrize("subfolder", ["plain_text", "data"])
def test_parquet_in_a_subfolder_as_a_string(tmp_path, cache, subfolder):
    write_parquet(tmp_path / "data" / subfolder)
    # What `hf download` leaves beside the files is no second data set.
    write_parquet(tmp_path / "data" / ".cache")
    assert_same(load_images(str(tmp_path / "data"), cache))


def test_parquet_in_shards_and_row_groups(tmp_path, cache):
    for i, part in enumerate((slice(0, 9), slice(9, 20))):
        shard = table(TRAIN_X[part], TRAIN_Y[part])
        path = tmp_path / f"train-0000{i}-of-00002.parquet"
        pq.write_table(shard, path, row_group_size=4)
    pq.write_table(table(TEST_X, TEST_Y), tmp_path / "test-00000-of-00001.parquet")
    assert_same(load_images(tmp_path, cache))


def test_other_column_names_and_integers(tmp_path, cache):
    train = table(TRAIN_X, TRAIN_Y, "image", "fine_label")
    small = train.column("fine_label").cast(pa.uint8())
    train = train.set_column(1, "fine_label", small)
    train = train.append_column("coarse_label", pa.array([0] * 20))
    assert_same(load_images(write_parquet(tmp_path / "data", train), cache))


def test_jpeg_is_decoded_as_pillow_does(tmp_path, cache):
    smooth = [np.full((SIDE, SIDE, 3), 12 * i, np.uint8) for i in range(20)]
    smooth[3][:16] = (250, 20, 90)
    jpegs = [encoded(image, "JPEG") for image in smooth]
    images = load_images(write_parquet(tmp_path / "d", table(jpegs, TRAIN_Y)), cache)
    for image, jpeg in zip(images.train_x, jpegs, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(jpeg))))
    np.testing.assert_allclose(images.train_x[7], smooth[7], atol=2)


def test_grey_palette_and_transparent_images_become_rgb(tmp_path, cache):
    grey = Image.fromarray(TRAIN_X[0][..., 0])
    clear = Image.fromarray(np.concatenate([TRAIN_X[1], TRAIN_X[1][..., :1]], -1))
    palette = Image.fromarray(TRAIN_X[2][..., 0] % 4).convert("P")
    given = [encoded(grey), encoded(clear), encoded(palette), *TRAIN_X[3:]]
    images = load_images(write_parquet(tmp_path / "d", table(given, TRAIN_Y)), cache)
    for channel in range(3):
        np.testing.assert_array_equal(images.train_x[0][..., channel], grey)
    np.testing.assert_array_equal(images.train_x[1], TRAIN_X[1])
    np.testing.assert_array_equal(images.train_x[2], palette.convert("RGB"))


def test_declared_classes_need_not_all_occur(tmp_path, cache):
    train = table(TRAIN_X, np.zeros(20, int), classes=12)
    images = load_images(write_parquet(tmp_path / "data", train), cache)
    assert images.classes == 12
    again = load_images(tmp_path / "data", cache)
    assert again.classes == 12


@pytest.mark.parametrize("protocol", [2, 5])
def test_python_batches(tmp_path, protocol):
    write_batches(tmp_path / "data" / "cifar-10-batches-py", protocol)
    assert_same(load_images(tmp_path / "data"))
    assert_same(load_images(tmp_path / "data" / "cifar-10-batches-py"))


def test_python_batches_in_their_archive(tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    write_archive(archive, write_batches(tmp_path / "elsewhere" / "batches"))
    before = sorted(tmp_path.iterdir())
    assert_same(load_images(archive))
    assert_same(load_images(tmp_path))
    assert sorted(tmp_path.iterdir()) == before


def python_2(value):
    """Opcodes of protocol 2 as Python 2 and NumPy 1 wrote the published batches."""
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(python_2, value)) + b"e"
    if isinstance(value, dict):
        pairs = b"".join(python_2(k) + python_2(v) for k, v in value.items())
        return b"}(" + pairs + b"u"
    shape = b"".join(map(python_2, value.shape))
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        + b"(K\x00tU\x01btR(K\x01("
        + shape
        + b"tcnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN"
        + python_2(-1) * 2
        + b"K\x00tb\x89"
        + python_2(value.tobytes())
        + b"tb"
    )


def test_python_batches_as_python_2_pickled_them(tmp_path):
    write_batches(tmp_path)
    for path in tmp_path.iterdir():
        batch = {b"batch_label": b"one of 5", **pickle.loads(path.read_bytes())}
        path.write_bytes(b"\x80\x02" + python_2(batch) + b".")
    assert_same(load_images(tmp_path))


class FakeDataset:
    """The part of `datasets.Dataset` that is used."""

    def __init__(self, table, file):
        self.table, self.as_arrow = table, False
        self.features = types.SimpleNamespace(arrow_schema=table.schema)
        self.cache_files = [{"filename": str(file)}]

    def __len__(self):
        return len(self.table)

    def select_columns(self, names):
        self.table = self.table.select(names)
        return self

    def with_format(self, name):
        self.as_arrow = name == "arrow"
        return self

    def iter(self, batch_size):
        assert self.as_arrow
        for start in range(0, len(self.table), 7):
            yield self.table.slice(start, 7)


@pytest.fixture
def fake_datasets(monkeypatch, tmp_path):
    """Put a module `datasets` in place whose data sets the test gives by name."""
    known = {}

    def load_dataset(name):
        if name not in known:
            raise ConnectionError(f"Couldn't reach {name!r}\non the Hub")
        return known[name]

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return known


def test_hugging_face(tmp_path, cache, fake_datasets, fails):
    file = tmp_path / "cifar10.arrow"
    file.write_bytes(b"of any content")
    fake_datasets["cifar10"] = {
        "train": FakeDataset(table(TRAIN_X, TRAIN_Y, classes=10), file),
        "test": FakeDataset(table(TEST_X, TEST_Y, classes=10), file),
    }
    assert_same(load_images("hf:cifar10", cache))
    assert len(list(cache.iterdir())) == 1
    fake_datasets["only"] = {"train": fake_datasets["cifar10"]["train"]}
    fails("hf:only", "train and test", "found train")
    message = fails("hf:nobody", "'nobody'", "ConnectionError: Couldn't reach 'nobody'")
    assert "on the Hub" not in message


def test_hugging_face_without_datasets(monkeypatch, fails):
    monkeypatch.setitem(sys.modules, "datasets", None)
    fails("hf:cifar10", "'cifar10'", "pip install datasets")


def test_describe():
    shape = (32, 32, 3)
    images = Images(
        np.empty((50_000, *shape), np.uint8),
        np.empty(50_000, np.int32),
        np.empty((10_000, *shape), np.uint8),
        np.empty(10_000, np.int32),
        10,
    )
    line = "50,000 + 10,000 images of 32×32×3, 10 classes"
    assert describe(images) == line


def count_decodings(monkeypatch):
    calls, read_split = [], images_module.read_split

    def counted(*args):
        calls.append(args)
        return read_split(*args)

    monkeypatch.setattr(images_module, "read_split", counted)
    return calls


def test_cache_spares_the_second_decoding(tmp_path, cache, monkeypatch):
    data = write_parquet(tmp_path / "data")
    calls = count_decodings(monkeypatch)
    load_images(data, cache)
    assert len(calls) == 2
    assert_same(load_images(data, cache))
    assert len(calls) == 2
    (kept,) = cache.iterdir()

    # A file of another time, then of another size, each kept beside the first.
    os.utime(data / "train.parquet", ns=(1, 1))
    assert_same(load_images(data, cache))
    assert len(calls) == 4
    status = (data / "train.parquet").stat()
    write_parquet(data, table(TRAIN_X[:10], TRAIN_Y[:10]))
    os.utime(data / "train.parquet", ns=(1, 1))
    assert (data / "train.parquet").stat().st_size < status.st_size
    assert len(load_images(data, cache).train_x) == 10
    assert len(list(cache.iterdir())) == 3
    assert kept.exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nonsense", None])
def test_damaged_cache_is_made_anew(tmp_path, cache, damage):
    data = write_parquet(tmp_path / "data")
    load_images(data, cache)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert_same(load_images(data, cache))
    assert len(kept.read_bytes()) == len(whole)


def test_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    data = write_parquet(tmp_path / "data")
    in_the_way = tmp_path / "file"
    in_the_way.write_text("a file where the folder should be")
    assert_same(load_images(data, in_the_way))

    def disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.np, "savez", disk_full)
    assert_same(load_images(data, tmp_path / "cache"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_is_in_the_users_folder(tmp_path, monkeypatch):
    data = write_parquet(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load_images(data)
    assert len(list((tmp_path / "xdg" / "optjax").glob("*.npz"))) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    load_images(data)
    home = tmp_path / "home" / ".cache" / "optjax"
    assert len(list(home.glob("*.npz"))) == 1


def test_progress_is_shown_on_a_terminal_alone(tmp_path, cache, monkeypatch, capfd):
    data = write_parquet(tmp_path / "data")
    load_images(data, cache)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(
        progress_module,
        "Console",
        lambda file: Console(file=file, force_terminal=True, width=80),
    )
    load_images(data, tmp_path / "another")
    out, err = capfd.readouterr()
    assert out == ""
    assert "decoding images" in err
    assert "30/30" in err


def test_nothing_there(tmp_path, fails):
    fails(tmp_path / "absent", str(tmp_path / "absent"), "nothing there")


def test_neither_format(tmp_path, fails):
    fails(tmp_path, "train*.parquet", "data_batch_1", "an empty folder")
    for i in range(9):
        (tmp_path / f"{i}.csv").touch()
    fails(tmp_path, "0.csv, 1.csv", "7.csv …")
    fails(tmp_path / "0.csv", f"the file {tmp_path / '0.csv'}")


def test_a_part_is_missing(tmp_path, fails):
    (write_parquet(tmp_path) / "test.parquet").unlink()
    fails(tmp_path, "test*.parquet", "only train.parquet")


def test_a_shard_is_missing_or_too_many(tmp_path, fails):
    write_parquet(tmp_path)
    first = tmp_path / "train-00000-of-00002.parquet"
    (tmp_path / "train.parquet").rename(first)
    fails(tmp_path, "all shards, 0 to 1", first.name)
    pq.write_table(table(TRAIN_X, TRAIN_Y), tmp_path / "train-00001-of-00002.parquet")
    pq.write_table(table(TRAIN_X, TRAIN_Y), tmp_path / "train.parquet")
    fails(tmp_path, "nothing beside them", "train.parquet")


def test_several_subfolders(tmp_path, cache):
    write_parquet(tmp_path / "one")
    write_parquet(tmp_path / "two")
    with pytest.raises(DataError, match=r"several: one, two\. Name the subfolder"):
        load_images(tmp_path, cache)


def test_parquet_cut_short(tmp_path, fails):
    path = write_parquet(tmp_path) / "train.parquet"
    whole = path.read_bytes()
    path.write_bytes(b"")
    fails(tmp_path, f"a whole Parquet file at {path}", "0 bytes")
    path.write_bytes(whole[:-100])
    fails(tmp_path, str(path), f"{len(whole) - 100:,} bytes")


def test_parquet_damaged_inside(tmp_path, fails, cache):
    path = write_parquet(tmp_path) / "train.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    fails(tmp_path, "a whole Parquet file", str(path))
    assert not cache.exists()


def test_parquet_without_rows(tmp_path, fails):
    write_parquet(tmp_path, table([], []))
    fails(tmp_path, "at least one image", "no rows", "train.parquet")


@pytest.mark.parametrize(
    "columns",
    [
        {"picture": [b""], "label": [0]},
        {"img": [b""], "label": [0]},
        {"img": [{"path": "a.png"}], "label": [0]},
        {"img": [{"bytes": b"", "path": ""}], "label": ["cat"]},
    ],
)
def test_parquet_with_other_columns(tmp_path, fails, columns):
    write_parquet(tmp_path, pa.table(columns))
    message = fails(tmp_path, "img: struct<bytes: binary, path: string>")
    for name in columns:
        assert f"{name}: " in message.partition("; found ")[2]


PNG = encoded(TRAIN_X[0])


@pytest.mark.parametrize("row", [0, 13])
@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"no image at all", "15 bytes"),
        (PNG[: len(PNG) // 2], f"{len(PNG) // 2:,} bytes"),
        (encoded(TRAIN_X[0], "BMP"), "PNG or JPEG"),
        (None, "found none in"),
        (b"", "found none in"),
    ],
)
def test_undecodable_image(tmp_path, fails, row, image, words):
    given = [*TRAIN_X]
    given[row] = image
    train = write_parquet(tmp_path, table(given, TRAIN_Y)) / "train.parquet"
    fails(tmp_path, f"{train}, row {row}", words)


def test_undecodable_image_in_a_later_batch_and_file(tmp_path, fails, monkeypatch):
    monkeypatch.setattr("optjax.tasks._data.parquet._BATCH_ROWS", 4)
    given = [*TEST_X[:9], b"damaged"]
    test = write_parquet(tmp_path, test=table(given, TEST_Y)) / "test.parquet"
    fails(tmp_path, f"{test}, row 9")


def test_more_than_8_bits_a_channel(tmp_path, fails):
    deep = encoded(Image.fromarray(np.full((SIDE, SIDE), 300, np.uint16)))
    write_parquet(tmp_path, table([*TRAIN_X[:19], deep], TRAIN_Y))
    fails(tmp_path, "8 bits", "row 19")


def test_images_of_different_sizes(tmp_path, fails):
    write_parquet(
        tmp_path, table([*TRAIN_X[:5], TRAIN_X[5][:8], *TRAIN_X[6:]], TRAIN_Y)
    )
    fails(tmp_path, "32×32", "8×32", "row 5")
    write_parquet(tmp_path, test=table([x[:8] for x in TEST_X], TEST_Y))
    fails(tmp_path, "32×32 for training, 8×32 for testing")


@pytest.mark.parametrize(
    ("label", "found"), [(None, "none"), (-1, "-1"), (2**40, str(2**40))]
)
def test_labels_out_of_any_range(tmp_path, fails, label, found):
    labels = [*TRAIN_Y[:6].tolist(), label, *TRAIN_Y[7:].tolist()]
    write_parquet(tmp_path, table(TRAIN_X, labels))
    fails(tmp_path, f"found {found} in", "train.parquet, row 6")


def test_labels_out_of_the_declared_range(tmp_path, fails):
    write_parquet(tmp_path, table(TRAIN_X, TRAIN_Y, classes=9))
    fails(tmp_path, "from 0 to 8", "found 9 in", "row 9")
    write_parquet(tmp_path, table(TRAIN_X, TRAIN_Y % 9, classes=9))
    fails(tmp_path, "0 to 8", "the label 9 among the test images")


def test_labels_that_start_at_1(tmp_path, fails):
    write_parquet(tmp_path, table(TRAIN_X, TRAIN_Y + 1))
    fails(tmp_path, "start at 0", "no training image with the label 0")


def test_a_label_of_the_test_images_alone(tmp_path, fails):
    write_parquet(tmp_path, test=table(TEST_X, [10] * 10))
    fails(tmp_path, "labels from 0 to 9", "the label 10 among the test images")


def test_a_batch_is_missing(tmp_path, fails):
    (write_batches(tmp_path) / "data_batch_4").unlink()
    fails(tmp_path, "data_batch_3, data_batch_5", "data_batch_4 missing")


def test_archive_cut_short_or_of_something_else(tmp_path, fails):
    archive = tmp_path / "cifar-10-python.tar.gz"
    write_archive(archive, write_batches(tmp_path / "elsewhere" / "batches"))
    whole = archive.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no archive"):
        archive.write_bytes(damaged)
        fails(archive, "a whole archive", f"{len(damaged):,} bytes")
    (tmp_path / "empty").mkdir()
    write_archive(archive, tmp_path / "empty")
    fails(archive, "none of them", "test_batch missing")


GOOD = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 9]}


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([1, 2], "a list of 2"),
        ({b"data": GOOD[b"data"]}, "found b'data' in"),
        ({}, "found nothing in"),
        (GOOD | {b"data": [[0] * 3072] * 2}, "a list of 2"),
        (GOOD | {b"data": np.zeros((2, 3072))}, "float64[2, 3072]"),
        (GOOD | {b"data": np.zeros(6144, np.uint8)}, "uint8[6144]"),
        (GOOD | {b"data": np.zeros((2, 3071), np.uint8)}, "rows of 3071"),
        (GOOD | {b"data": np.zeros((0, 3072), np.uint8)}, "0 rows"),
        (GOOD | {b"data": np.zeros((2, 192), np.uint8)}, "8×8, 32×32"),
        (GOOD | {b"labels": [0]}, "a list of 1"),
        (GOOD | {b"labels": [0, None]}, "a list of 2"),
        (GOOD | {b"labels": [0, [1, 2]]}, "a list of 2"),
        (GOOD | {b"labels": [0, 10]}, "found 10 in"),
        (GOOD | {b"labels": [-1, 0]}, "found -1 in"),
    ],
)
def test_batch_of_something_else(tmp_path, fails, batch, words):
    path = write_batches(tmp_path) / "data_batch_2"
    path.write_bytes(pickle.dumps(batch))
    fails(tmp_path, words)


@pytest.mark.parametrize("damage", ["empty", "half", "noise"])
def test_damaged_pickle(tmp_path, fails, damage):
    path = write_batches(tmp_path) / "data_batch_2"
    whole = path.read_bytes()
    noise = np.random.default_rng(0).bytes(200)
    damaged = {"empty": b"", "half": whole[: len(whole) // 2], "noise": noise}[damage]
    path.write_bytes(damaged)
    fails(tmp_path, str(path), f"{len(damaged):,} bytes")


class Attack:
    """A pickle that would make a file as it is loaded."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def test_pickle_that_calls_something_is_refused(tmp_path, fails):
    made = tmp_path / "made"
    path = write_batches(tmp_path / "data") / "data_batch_2"
    for attack in (
        Attack(os.mkdir, str(made)),
        Attack(eval, f"open({str(made)!r}, 'w')"),
        Attack(np.memmap, str(made), "u1", "w+", 0, (1,)),
    ):
        pickled = pickle.dumps(GOOD | {b"extra": attack})
        path.write_bytes(pickled)
        fails(tmp_path / "data", "not among what a batch may hold")
        assert not made.exists()
    # The same bytes do it where nobody looks: the attack is a real one.
    pickle.loads(pickled)
    assert made.exists()


def test_text(tmp_path):
    path = tmp_path / "text.txt"
    content = "Größe\r\nüber → alles 😀\n" * 5
    path.write_bytes(content.encode())
    text = load_text(str(path))
    assert text.vocabulary == "".join(sorted(set(content)))
    assert text.train.dtype == text.validation.dtype == np.uint8
    assert len(text.validation) == len(content) // 10
    ids = np.concatenate([text.train, text.validation])
    assert "".join(text.vocabulary[i] for i in ids) == content


def test_text_of_many_characters(tmp_path):
    path = tmp_path / "text.txt"
    content = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    path.write_text(content, encoding="utf-8")
    text = load_text(path, validation_share=0.25)
    assert text.vocabulary == content
    assert text.train.dtype == text.validation.dtype == np.int32
    assert text.train.tolist() == list(range(225))
    assert text.validation.tolist() == list(range(225, 300))


def test_text_that_is_not_utf_8(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("Größe".encode() + b" in \xe9t\xe9")
    with pytest.raises(DataError, match="0xe9 at offset 11") as raised:
        load_text(path)
    assert str(path) in str(raised.value)
    assert "gutenberg" in str(raised.value)


@pytest.mark.parametrize("content", ["", "a", "19 characters, alas"])
def test_text_too_short(tmp_path, content):
    path = tmp_path / "text.txt"
    path.write_text(content)
    with pytest.raises(DataError, match="looked for 2 characters"):
        load_text(path)
    path.write_text(content + "a" * (20 - len(content)))
    assert len(load_text(path).validation) == 2


def test_text_missing(tmp_path):
    with pytest.raises(DataError, match=r"absent\.txt; found FileNotFoundError"):
        load_text(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="IsADirectoryError"):
        load_text(tmp_path)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_validation_share(tmp_path, share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        load_text(tmp_path / "text.txt", validation_share=share)
