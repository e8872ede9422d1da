"""Malformed input for the readers: whatever the bytes, the answer is a result or a `NiwtError`, soon and in little memory.

With test_fuzz_files.py more than 10,000 malformed files go through in one run; `NIWT_FUZZ=20` makes every loop twenty times as long.
"""

import contextlib
import io
import json
import os
import random
import re
import resource
import string
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from PIL import Image
from scipy.io import savemat

from niwt_nb.core import NiwtError, _normal_name
from niwt_nb.data.awa2 import _read_sentences
from niwt_nb.data.cub import _read_image_attributes
from niwt_nb.data.dataset import DomainKnowledge, ZeroShotData, subset
from niwt_nb.data.files import _propose_split, _read_attribute_table, _read_csv_rows, _read_json
from niwt_nb.data.files import _read_matrix, _read_numbered
from niwt_nb.data.images import FORMATS, _MAX_PIXELS, open_image, _safe_name
from niwt_nb.data.names import _match_names, _pair_names, _plain_name
from niwt_nb.data.text import _read_embeddings
from niwt_nb.data.xlsa17 import _read_att_splits, _read_features

NAMES = st.one_of(
    st.sampled_from(
        [
            "C",
            "C++",
            "C#",
            "c",
            "A+",
            "A-",
            "A",
            "Cafe\u0301",
            "Caf\u00e9",
            "1",
            "01",
            "9.Kea",
            "009.kea",
            "9.Owl",
        ]
    ),
    st.text(max_size=5),
)
TIMES = int(os.environ.get("NIWT_FUZZ", "1"))
FEW = settings(
    max_examples=60 * TIMES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


def damaged(raw: bytes, n: int, seed: int):
    "n variants of a file: bits flipped, cut, doubled, shifted, numbers made huge, or noise."
    dice = random.Random(seed)
    for _ in range(n):
        b = bytearray(raw)
        for _ in range(dice.choice((1, 1, 2, 5, 30))):
            at = dice.randrange(len(b)) if b else 0
            if dice.random() < 0.5:
                at = min(at, 200, max(len(b) - 1, 0))  # headers are where it hurts
            kind = dice.randrange(7)
            if not b:
                break
            if kind == 0:
                b[at] ^= 1 << dice.randrange(8)
            elif kind == 1:
                b[at] = dice.randrange(256)
            elif kind == 2:
                del b[at : at + dice.randrange(1, 64)]
            elif kind == 3:
                b[at:at] = dice.randbytes(dice.randrange(1, 32))
            elif kind == 4:
                b[at : at + 4] = dice.choice(
                    (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80")
                )
            elif kind == 5:
                del b[dice.randrange(len(b)) :]
            else:
                b[at:at] = b[at : at + dice.randrange(1, 256)]
        yield bytes(b)


def survives(read, path, variants, allowed=(NiwtError,)) -> dict[str, int]:
    "Read every variant; count results and errors. Any other exception goes through and fails the test, with the bytes kept beside it."
    count = {"read": 0, "refused": 0}
    for raw in variants:
        path.write_bytes(raw)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                warnings.simplefilter("ignore", UserWarning)  # Pillow's remarks on damaged metadata
                read(path)
            count["read"] += 1
        except allowed as e:
            assert len(str(e)) > 10 and "\0" not in str(e)
            count["refused"] += 1
    return count


@pytest.fixture(autouse=True)
def little_memory():
    "No malformed file may make the process grow by a gigabyte."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1_000_000, f"the process grew by {grown / 1e6:.1f} GB"


def mat_bytes(compress: bool) -> bytes:
    names = np.empty((4, 1), dtype=object)
    names[:, 0] = list("abcd")
    f = io.BytesIO()
    loc = {
        "trainval_loc": [1, 3, 5],
        "test_seen_loc": [2, 4, 6],
        "test_unseen_loc": [7, 8],
        "train_loc": [1, 3],
        "val_loc": [5],
    }
    columns = {k: np.array([v], np.uint16).T for k, v in loc.items()}
    savemat(
        f,
        {"allclasses_names": names, "att": np.arange(12.0).reshape(3, 4), **columns},
        do_compression=compress,
    )
    return f.getvalue()


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_a_damaged_mat_file_is_read_or_refused(tmp_path, compress):
    count = survives(
        _read_att_splits,
        tmp_path / "att_splits.mat",
        damaged(mat_bytes(compress), 300 * TIMES, seed=compress),
    )
    assert count["refused"] > 50 * TIMES


@FEW
@given(
    key=st.sampled_from(
        ["att", "allclasses_names", "trainval_loc", "test_seen_loc", "test_unseen_loc", "val_loc"]
    ),
    value=arrays(
        scalar_dtypes().filter(lambda d: d.kind in "biufcS"),
        array_shapes(min_dims=1, max_dims=3, max_side=4),
    ),
)
def test_a_mat_file_of_wrong_contents_is_read_or_refused(tmp_path_factory, key, value):
    path = tmp_path_factory.getbasetemp() / "wrong.mat"
    columns = {
        "att": np.eye(2),
        "allclasses_names": np.array(["a", "b"], dtype=object),
        "trainval_loc": [1],
        "test_seen_loc": [2],
        "test_unseen_loc": [3],
    }
    try:
        savemat(path, columns | {key: value})
    except Exception:  # scipy cannot write it: nothing to read
        return
    try:
        found = _read_att_splits(path)
    except NiwtError:
        return
    assert found.attributes.shape[0] == len(found.classes)
    for index in (found.trainval, found.test_seen, found.test_unseen, found.val):
        assert (index >= 0).all() and len(index.unique()) == len(index)


def picture(form: str) -> bytes:
    dice = np.random.default_rng(0)
    f = io.BytesIO()
    image = Image.fromarray(dice.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(f, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}))
    return f.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_picture_is_read_or_refused(tmp_path, form):
    path = tmp_path / "x.img"

    def read(p):
        image = open_image(p)
        assert image.mode == "RGB" and image.width * image.height <= _MAX_PIXELS
        assert np.asarray(image).shape == (image.height, image.width, 3)

    count = survives(read, path, damaged(picture(form), 120 * TIMES, seed=1))
    assert count["refused"] > 5 * TIMES


@pytest.mark.parametrize("form", ["EPS", "PDF", "ICO", "TGA"])
def test_other_formats_are_never_tried(tmp_path, form):
    path = tmp_path / "x.img"
    Image.new("RGB", (8, 8)).save(path, form)
    with pytest.raises(NiwtError, match="cannot be read"):
        open_image(path)


CSV = b"class,small,red wing,beak\nkea,0.5,1,2\nowl,0,0.25,1e-3\nemu,1,1,0\n"
JSON = json.dumps({"kea": {"small": 0.5, "red": 1}, "owl": {"small": 1, "red": 0}}).encode()
SAID = json.dumps({"kea": ["A green parrot.", "It is bold."], "owl": "Flies at night."}).encode()
SHEET = "sep=;\r\nclass;small;red;;\r\nkea;0,5;NA;;\r\nowl;-1;TRUE;;\r\nCafe\u0301;1,25;0;;\r\n"
ACROSS = b",kea,owl\nsmall,0.5,1\nred,,-1\n"
NUMBERED = b"1 001.Kea/a.jpg\n2 001.Kea/b.jpg\n3 002.Owl/c.jpg\n"
MATRIX = b"1 2.5 3\n4 5 -6e1\n7 8 9\n"
LABELS = b"1 1 1 3 1.5\n1 2 0 1 0.2\n2 1 1 4 0 0 1.509\n2 2 1 2 3\n"


@pytest.mark.parametrize(
    ("name", "raw", "read"),
    [
        ("t.csv", CSV, _read_attribute_table),
        ("t.json", JSON, _read_attribute_table),
        ("s.json", SAID, _read_sentences),
        ("s.csv", b"class,sentence\nkea,A green parrot.\nowl,'Flies, at night'\n", _read_sentences),
        ("t.csv", SHEET.encode(), lambda p: _read_attribute_table(p, ("kea", "owl"))),
        ("t.csv", SHEET.encode("utf-16"), _read_attribute_table),
        ("t.csv", ACROSS, lambda p: _read_attribute_table(p, ("kea", "owl"))),
        ("images.txt", NUMBERED, _read_numbered),
        ("m.txt", MATRIX, _read_matrix),
        ("l.txt", LABELS, lambda p: _read_image_attributes(p, 2, 2)),
    ],
    ids=[
        "csv",
        "json",
        "sentences.json",
        "sentences.csv",
        "sheet",
        "utf-16",
        "across",
        "numbered",
        "matrix",
        "image attributes",
    ],
)
def test_a_damaged_text_file_is_read_or_refused(tmp_path, name, raw, read):
    count = survives(read, tmp_path / name, damaged(raw, 400 * TIMES, seed=2))
    assert count["refused"] > 10 * TIMES


def test_a_damaged_embedding_is_read_or_refused(tmp_path):
    f = io.BytesIO()
    np.save(f, np.arange(12, dtype=np.float32).reshape(4, 3))
    survives(
        lambda p: _read_embeddings(p, 4),
        tmp_path / "e.npy",
        damaged(f.getvalue(), 300 * TIMES, seed=3),
    )


def test_a_damaged_feature_file_is_read_or_refused(tmp_path):
    f = io.BytesIO()
    files = np.array([f"/x/{i}.jpg" for i in range(6)], dtype=object)
    savemat(
        f,
        {
            "features": np.arange(12.0).reshape(2, 6),
            "labels": np.arange(1, 7)[:, None],
            "image_files": files,
        },
    )
    survives(_read_features, tmp_path / "res101.mat", damaged(f.getvalue(), 300 * TIMES, seed=4))


@FEW
@given(text=st.text(alphabet=string.printable + "äß\u2028\ufeff", max_size=200))
def test_any_text_is_a_table_or_an_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(text, encoding="utf-8")
    for read in (
        _read_csv_rows,
        _read_attribute_table,
        _read_sentences,
        _read_numbered,
        _read_matrix,
        _read_json,
    ):
        with contextlib.suppress(NiwtError):
            read(path)


@FEW
@given(wanted=st.lists(NAMES, max_size=6), have=st.lists(NAMES, max_size=6))
def test_names_are_paired_once_and_exactly_where_they_can_be(wanted, have):
    notes = []
    at = _pair_names(wanted, have, "name", notes)
    found = [(wanted[i], have[j]) for i, j in enumerate(at) if j is not None]
    assert len({j for j in at if j is not None}) == len(found)
    number = r"(?=\d)0*(\d*)\s*\."
    for i, j in enumerate(at):
        if wanted.count(wanted[i]) == 1 and have.count(wanted[i]) == 1:
            assert have[j] == wanted[i]
    for ours, theirs in found:
        if _plain_name(ours) != _plain_name(theirs):  # found by their numbers
            assert re.match(number, ours)[1] == re.match(number, theirs)[1]
    assert notes or all(_normal_name(ours) == _normal_name(theirs) for ours, theirs in found)
    with contextlib.suppress(NiwtError):
        assert _match_names(wanted, have).tolist() == at


@FEW
@given(name=st.text(max_size=30))
def test_no_name_from_a_list_leaves_the_folder(name):
    try:
        safe = _safe_name(name, "images.csv")
    except NiwtError:
        return
    where = os.path.normpath(os.path.join("/data/root", safe))
    assert where == "/data/root" or where.startswith("/data/root/")


@FEW
@given(st.data())
def test_match_names_undoes_any_order(data):
    names = data.draw(
        st.lists(
            st.text(alphabet="abcdefgh", min_size=1, max_size=8),
            min_size=1,
            max_size=12,
            unique=True,
        )
    )
    other = data.draw(st.permutations(names))
    spelled = [f"{i:03d}." + n.upper().replace("A", "A_") for i, n in enumerate(other)]
    assert [other[i] for i in _match_names(names, spelled).tolist()] == names


def made_up(dice: np.random.Generator) -> ZeroShotData:
    n_classes = int(dice.integers(4, 9))
    per = dice.integers(1, 6, n_classes)
    labels = torch.from_numpy(np.repeat(np.arange(n_classes), per))
    order = torch.from_numpy(dice.permutation(n_classes))
    unseen = order[: int(dice.integers(1, n_classes - 2))]
    split = _propose_split(
        [f"class {i}" for i in range(n_classes)],
        labels,
        unseen,
        test=float(dice.choice([0, 0.25, 0.6])),
        seed=int(dice.integers(99)),
    )
    values = dice.normal(size=(n_classes, 3)).astype(np.float32)
    images = [Image.new("RGB", (2, 2), (i, int(c), 0)) for i, c in enumerate(labels)]
    return ZeroShotData(
        "made up",
        tuple(f"class {i}" for i in range(n_classes)),
        images,
        labels,
        knowledge={"a": DomainKnowledge("a", values, ("x", "y", "z"))},
        **split,
    )


@pytest.mark.parametrize("seed", range(20 * TIMES))
def test_validation_holds_nothing_of_the_unseen_classes(seed):
    dice = np.random.default_rng(seed)
    data = made_up(dice)
    if not len(data.val_classes):
        with pytest.raises(NiwtError, match="val_classes"):
            data.validation()
        return
    val = data.validation(seed=seed, hold=float(dice.uniform(0.05, 0.95)))
    reached = {im.getpixel((0, 0))[:2] for im in val.images}
    assert {i for i, _ in reached} == set(data.train.tolist())
    assert {c for _, c in reached} <= set(data.seen.tolist())
    assert val.get_knowledge().values[data.unseen].isnan().all()
    assert set(val.seen.tolist()) | set(val.unseen.tolist()) == set(data.seen.tolist())
    parts = [set(getattr(val, k).tolist()) for k in ("train", "test_seen", "test_unseen")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(val)
    for c in val.seen.tolist():
        assert (val.labels[val.train] == c).any()


@pytest.mark.parametrize("seed", range(10 * TIMES))
def test_excerpt_and_take_keep_every_image_with_its_class(seed):
    dice = np.random.default_rng(seed)
    data = made_up(dice)
    n_seen, n_unseen = (
        int(dice.integers(2, len(data.seen) + 1)),
        int(dice.integers(1, len(data.unseen) + 1)),
    )
    part = subset(data, n_seen, n_unseen, per_class=int(dice.integers(1, 4)), seed=seed)
    for i, image in enumerate(part.images):
        index, label, _ = image.getpixel((0, 0))
        assert index == part.source[i] and part.classes[part.labels[i]] == data.classes[label]
    for c, name in enumerate(part.classes):
        assert torch.equal(
            part.get_knowledge().values[c], data.get_knowledge().values[data.class_id(name)]
        )
