"""Readers on the real files, and on a full-size file in a published layout.

NIWT_CUB_ROOT: the CUB_200_2011 folder. NIWT_XLSA17_ROOT: the folder that holds CUB/att_splits.mat and AWA2/att_splits.mat.
"""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import real
from PIL import Image
from scipy.io import loadmat

from niwt_nb.core import NiwtError
from niwt_nb.data.check import check_root
from niwt_nb.data.cub import read_cub, _read_image_attributes
from niwt_nb.data.dataset import ZeroShotData, subset
from niwt_nb.data.folder import read_folder
from niwt_nb.data.images import batches, open_image
from niwt_nb.data.xlsa17 import _load_mat, _read_att_splits


def place(variable: str) -> Path:
    return real(variable)[0]


@pytest.fixture(scope="module")
def cub() -> ZeroShotData:
    return read_cub(place("NIWT_CUB_ROOT"), splits=place("NIWT_XLSA17_ROOT") / "CUB")


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1).float() / 255


def test_cub_has_the_published_numbers(cub):
    assert (len(cub), len(cub.classes), len(cub.seen), len(cub.unseen), len(cub.val_classes)) == (
        11788,
        200,
        150,
        50,
        50,
    )
    assert (len(cub.train), len(cub.test_seen), len(cub.test_unseen)) == (7057, 1764, 2967)
    assert (
        cub.classes[0] == "001.Black_footed_Albatross"
        and len(cub.get_knowledge("attributes").names) == 312
    )
    assert cub.get_knowledge("captions").values.shape[0] == 200
    assert (
        cub.boxes.shape == (11788, 4)
        and cub.parts.shape == (11788, 15, 3)
        and "beak" in cub.part_names
    )
    assert cub.summary().loc["unseen", "test images"] == 2967


def test_cub_agrees_with_a_reading_of_its_files_by_hand(cub):
    root, splits = (
        place("NIWT_CUB_ROOT"),
        loadmat(place("NIWT_XLSA17_ROOT") / "CUB" / "att_splits.mat"),
    )
    files = [line.split()[1] for line in (root / "images.txt").read_text().splitlines()]
    for i in (0, 1, 777, 11787):
        assert cub.images.names[i] == files[i]
        assert cub.classes[cub.labels[i]] == files[i].split("/")[0]
    assert sorted(cub.test_unseen.tolist()) == sorted(
        int(i) - 1 for i in splits["test_unseen_loc"].ravel()
    )
    names = [str(n[0]) for n in splits["allclasses_names"].ravel()]
    ours = cub.get_knowledge("attributes").values
    theirs = splits["original_att"].T / 100
    for c in (0, 13, 199):
        assert np.allclose(ours[c], theirs[names.index(cub.classes[c])], atol=1e-6)
    box = (root / "bounding_boxes.txt").read_text().splitlines()[4711].split()
    assert cub.boxes[4711].tolist() == pytest.approx([float(v) for v in box[1:]])


def test_cub_boxes_and_parts_lie_in_their_pictures(cub):
    for i in range(0, 11788, 997):
        image = cub.images[i]
        x, y, w, h = cub.boxes[i].tolist()
        assert (
            image.mode == "RGB"
            and 0 <= x < image.width
            and 0 <= y < image.height
            and w > 0
            and h > 0
        )
        assert x + w <= image.width + 2 and y + h <= image.height + 2
        seen = cub.parts[i][cub.parts[i][:, 2] > 0]
        assert (seen[:, 0] <= image.width + 1).all() and (seen[:, 1] <= image.height + 1).all()


def test_cub_validation_reaches_only_seen_training_images(cub):
    val = cub.validation()
    allowed = {cub.images.names[i] for i in cub.train.tolist()}
    reached = {cub.images.names[i] for i in val.source.tolist()}
    assert reached == allowed
    assert not {n.split("/")[0] for n in reached} & {cub.classes[c] for c in cub.unseen.tolist()}
    for k in val.knowledge.values():
        assert k.values[cub.unseen].isnan().all() and k.values[cub.seen].isfinite().all()
    assert (len(val.seen), len(val.unseen)) == (100, 50)


def test_cub_batches_and_excerpt(cub):
    part = subset(cub, 15, 5, per_class=4)
    x, y, index = next(iter(batches(part, part.train, to_tensor, batch_size=8)))
    assert x.shape == (8, 3, 32, 32) and torch.equal(y, part.labels[index])

    def fetch(index):
        return (
            torch.stack([to_tensor(part.images[int(i)]) for i in index]),
            part.labels[torch.stack(index)],
            torch.stack(index),
        )

    loader = torch.utils.data.DataLoader(
        part.train[:8], batch_size=8, num_workers=2, collate_fn=fetch
    )
    a, b, c = next(iter(loader))
    assert torch.equal(a, x) and torch.equal(b, y) and torch.equal(c, index)
    assert check_root(place("NIWT_CUB_ROOT")).ok


def test_cub_split_of_another_data_set_is_refused(cub):
    with pytest.raises(NiwtError, match="unknown class '001.Black_footed_Albatross'"):
        read_cub(place("NIWT_CUB_ROOT"), splits=place("NIWT_XLSA17_ROOT") / "AWA2")


def test_awa2_split_file_has_the_published_numbers():
    splits = _read_att_splits(place("NIWT_XLSA17_ROOT") / "AWA2")
    assert (len(splits.classes), splits.attributes.shape) == (50, (50, 85))
    assert (len(splits.trainval), len(splits.test_seen), len(splits.test_unseen)) == (
        23527,
        5882,
        7913,
    )
    whole = _load_mat(place("NIWT_XLSA17_ROOT") / "AWA2" / "att_splits.mat", ["train_loc"])
    assert (whole["train_loc"].size, len(splits.val)) == (20218, 9191)
    assert splits.attributes.min() == -1 and splits.attributes.max() == 100
    every = torch.cat([splits.trainval, splits.test_seen, splits.test_unseen])
    assert torch.equal(every.sort().values, torch.arange(37322))


def test_awa2_split_counts_folders_by_name():
    "The blocks of unseen images fall on whole classes (their published sizes) in the order of folder names, which is the order the reader assumes."
    splits = _read_att_splits(place("NIWT_XLSA17_ROOT") / "AWA2")
    ends = {
        "bat": (1046, 383),
        "blue+whale": (1622, 174),
        "bobcat": (1796, 630),
        "dolphin": (8875, 946),
        "giraffe": (13430, 1202),
    }
    unseen = set(splits.test_unseen.tolist())
    for name, (start, n) in ends.items():
        assert name in splits.classes
        assert all(i in unseen for i in range(start, start + n)), name
    assert 1045 not in unseen and 1046 + 383 not in unseen and 13430 + 1202 not in unseen


def make_folder(root: Path, n_classes: int = 6, per_class: int = 5) -> Path:
    lines = ["class,a,b"]
    for c in range(n_classes):
        (root / "images" / f"c{c}").mkdir(parents=True)
        lines.append(f"c{c},{c},{c * c}")
        for i in range(per_class):
            Image.new("RGB", (20, 20), (c * 40, i * 40, 0)).save(
                root / "images" / f"c{c}" / f"{i}.jpg"
            )
    (root / "attributes.csv").write_text("\n".join(lines))
    return root


def test_a_data_set_can_be_sent_to_another_process(tmp_path):
    data = read_folder(make_folder(tmp_path), unseen=["c5"])
    other = pickle.loads(pickle.dumps(data.validation()))
    assert other.images[0].size == (20, 20) and len(other) == len(data.train)
    assert dataclasses.replace(data, name="other").name == "other"


def test_reading_opens_no_picture(tmp_path):
    root = make_folder(tmp_path)
    for f in (root / "images").rglob("*.jpg"):
        f.write_bytes(b"not a picture")
    data = read_folder(root, unseen=["c5"])
    with pytest.raises(NiwtError, match=r"0\.jpg' cannot be read"):
        data.images[0]


def test_a_picture_without_permission_is_named(tmp_path, nobody):
    root = make_folder(tmp_path)
    (root / "images" / "c0" / "0.jpg").chmod(0)
    data = read_folder(root, unseen=["c5"])
    with nobody(), pytest.raises(NiwtError, match="PermissionError"):
        data.images[0]


def test_large_photos_are_made_smaller_in_little_memory(tmp_path):
    import resource

    Image.new("L", (9000, 6000)).save(tmp_path / "large.jpg", quality=20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    image = open_image(tmp_path / "large.jpg")
    assert image.size == (4500, 3000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    Image.new("L", (9000, 6000)).save(tmp_path / "large.png")
    with pytest.raises(NiwtError, match="9000 x 6000 pixels, more than 50 megapixels"):
        open_image(tmp_path / "large.png")


def test_image_attributes_with_the_known_fault(tmp_path):
    "A tenth of the published file, with a line of seven values as it has some."
    images, attributes = 1200, 312
    lines = [
        f"{i} {a} {(i * a) % 3 == 0:d} {1 + (i + a) % 4} 1.5"
        for i in range(1, images + 1)
        for a in range(1, attributes + 1)
    ]
    lines[5000] = " ".join([*lines[5000].split()[:4], "0", "0", "1.509"])
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    table, lost = _read_image_attributes(tmp_path / "labels.txt", images, attributes)
    i, a = np.meshgrid(np.arange(1, images + 1), np.arange(1, attributes + 1), indexing="ij")
    assert lost == 0
    assert np.array_equal(table.numpy(), ((i * a) % 3 == 0) & ((i + a) % 4 != 0))


def test_names_with_markup_and_unicode_pass_through_unharmed(tmp_path):
    root = tmp_path / "own"
    names = ["<script>alert(1)<script>", "Größe & 'Quote\"", "犬", "c3"]
    for n in names:
        (root / n).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (4, 4)).save(root / n / f"{i}.png")
    import csv

    with open(root / "attributes.csv", "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([["class", "<b>x</b>"], *([n, i] for i, n in enumerate(names))])
    data = read_folder(root, unseen=["犬"])
    assert set(data.classes) == set(names) and data.get_knowledge().names == ("<b>x</b>",)
