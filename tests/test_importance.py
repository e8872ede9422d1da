"What the notebook of `importance` cannot show: interruptions at every point, hooks and modes of real models, flat memory, and a run that is killed."

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from slipcover import pytest_plugin as slipcover_plugin
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from torch import nn

from niwt_nb.core import NiwtError, import_torchvision, model_hash, seeded
from niwt_nb.data.images import batches
from niwt_nb.fieldguide.network import SmallCNN
from niwt_nb.fieldguide.world import field_guide
from niwt_nb.method.attribution import _METHODS
from niwt_nb.method.engine import ImportanceEngine, class_importance, neuron_importance
from niwt_nb.method.importance import cmp, frozen_copy
from niwt_nb.method.store import open_store, write_importance
from niwt_nb.network.cut import cut

WORKERS = Path(__file__).parent / "workers"


def traces(model: nn.Module) -> list:
    "Everything about a model that a careless tool leaves changed."
    return [
        (
            name,
            module.training,
            sorted(vars(module)),
            [len(v) for k, v in sorted(vars(module).items()) if "hooks" in k],
            [
                (n, id(p), p.requires_grad, p.grad, p._version)
                for n, p in module.named_parameters(recurse=False)
            ],
            [(n, id(b), b._version) for n, b in module.named_buffers(recurse=False)],
        )
        for name, module in model.named_modules()
    ]


@pytest.fixture
def resnet():
    with seeded(0):
        model = import_torchvision().models.resnet18(num_classes=7)
        x = torch.randn(3, 3, 32, 32)
    model.train()
    model.layer1.eval()  # an unusual mix of modes must survive
    model.conv1.weight.requires_grad_(False)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    return model, x


@pytest.mark.parametrize("method", _METHODS)
def test_every_method_leaves_a_resnet_as_it_was(resnet, method):
    model, x = resnet
    before, answer = traces(model), model_hash(model)
    alpha = neuron_importance(
        cut(model, "layer4"),
        x,
        [1, 2, 3],
        method,
        **({} if method == "gradient" else {"steps": 4, "samples": 2, "at_once": 64}),
    )
    assert alpha.shape == (3, 512) and alpha.isfinite().all() and not alpha.requires_grad
    assert traces(model) == before and model_hash(model) == answer
    assert torch.is_grad_enabled()


class Interrupt(nn.Module):
    "Passes its input on, and raises when the count (of the class, so that copies share it) is used up."

    left, error = 0, KeyboardInterrupt()

    def forward(self, x):
        Interrupt.left -= 1
        if Interrupt.left < 0:
            raise self.error
        return x


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), RuntimeError("out of memory"), SystemExit(3)],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize(
    "method", ["gradient", "conductance", "deeplift", "ablation", "gradient_shap"]
)
def test_an_interrupt_anywhere_leaves_the_model_as_it_was(error, after, method):
    with seeded(0):
        model = SmallCNN(4, width=4, features=8)
        x = torch.rand(4, 3, 16, 16)
    model.pool = nn.Sequential(model.pool, Interrupt())
    network = cut(model, "stage2")
    model.train()
    before, answer, state = traces(model), model_hash(model), torch.get_rng_state()
    Interrupt.left, Interrupt.error = after, error
    with pytest.raises((type(error), NiwtError)):
        for _ in range(4):
            neuron_importance(network, x, 1, method, chunk=2)
    assert traces(model) == before and model_hash(model) == answer
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.equal(torch.get_rng_state(), state)


def test_an_interrupt_from_outside_while_the_engine_runs(monkeypatch):
    "A real SIGINT, as a notebook's stop button sends it, in the middle of a long batch."
    # no code of the measurement in which the signal could arrive
    if measured := slipcover_plugin._slipcover_instance:
        # Python 3.12 and later have none
        monkeypatch.setattr(measured, "deinstrument_seen", int, raising=False)
    with seeded(0):
        model = import_torchvision().models.resnet18(num_classes=7).eval()
    network = cut(model, "layer4.0")
    before = traces(model)
    engine = ImportanceEngine(network, chunk=1)
    old = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    old_int = signal.signal(signal.SIGINT, signal.default_int_handler)
    # once more where Python was in a destructor, which swallows the first
    signal.setitimer(signal.ITIMER_REAL, 0.5, 5)
    give_up = time.monotonic() + 60
    try:
        with pytest.raises(KeyboardInterrupt):
            while time.monotonic() < give_up:
                engine(torch.zeros(16, 3, 64, 64), "all")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        signal.signal(signal.SIGINT, old_int)
    assert traces(model) == before
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


def test_hooks_of_the_user_stay_and_are_not_counted_twice(resnet):
    model, x = resnet
    calls = []
    handle = model.layer4.register_forward_hook(lambda *_: calls.append(1))
    neuron_importance(cut(model, "layer4"), x, 0)
    assert len(model.layer4._forward_hooks) == 1
    calls.clear()
    model.eval()(x)
    assert calls == [1]
    handle.remove()


def test_equal_to_captum_on_a_network_in_training_mode_switched_to_evaluation(resnet):
    model, x = resnet
    ours = ImportanceEngine(cut(model, "layer4.0"), chunk=2)(x, [0, 1, 2])
    plain = frozen_copy(model)
    judge = (
        LayerGradientXActivation(plain, plain.layer4[0], multiply_by_inputs=False)
        .attribute(x, target=[0, 1, 2])
        .mean((2, 3))
    )
    assert cmp("resnet18", ours.alpha, judge).close
    assert cmp("scores", ours.logits, plain(x), tol=1e-5).close


def test_integrated_gradients_where_captum_stops():
    "A convolution before an in-place ReLU: Captum's own class raises on the model, and works on the engine's copy."
    with seeded(0):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 3)
        ).eval()
        x = torch.randn(2, 3, 8, 8)
    with pytest.raises(RuntimeError, match="in-place"):
        LayerIntegratedGradients(model, model[0]).attribute(x, target=1)
    alpha = neuron_importance(cut(model, "0"), x, 1, "integrated_gradients", steps=64)
    change = (model(x) - model(0 * x))[:, 1]
    assert cmp("completeness", alpha.sum(1) * 36, change, tol=1e-2).close


def test_chunks_do_not_change_the_result(resnet):
    model, x = resnet
    network = cut(model, "layer3")
    results = [
        ImportanceEngine(network, chunk=c)(torch.cat([x, x, x]), "all").alpha for c in (1, 4, 64)
    ]
    assert (
        cmp("1 = 4", results[0], results[1], tol=2e-6).close
        and cmp("4 = 64", results[1], results[2], tol=2e-6).close
    )


def test_a_model_on_half_the_memory_layout_and_strided_input(resnet):
    "Channels-last weights and a batch that is a strided view give the same."
    model, x = resnet
    expected = neuron_importance(cut(model, "layer4.0"), x, 1)
    strided = torch.stack([x, x], 1).flatten(0, 1)[::2].to(memory_format=torch.channels_last)
    model.to(memory_format=torch.channels_last)
    assert cmp(
        "layout", neuron_importance(cut(model, "layer4.0"), strided, 1), expected, tol=2e-6
    ).close


@pytest.fixture(scope="module")
def world():
    with seeded(0):
        data = field_guide(n_seen=20, n_unseen=5, images_per_class=(4, 1), size=32, seed=0)
        network = cut(SmallCNN(20, width=8, features=16).eval(), "stage2")
    return data, network


def transform(image):
    return (
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        .view(image.height, image.width, 3)
        .permute(2, 0, 1)
        / 255
        - 0.5
    )


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, world):
    data, network = world
    whole = write_importance(
        network, data, None, transform, tmp_path / "whole", shard=8, dtype="float32"
    )
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import os, signal, torch
import test_importance as t
from niwt_nb.core import seeded
from niwt_nb.fieldguide.network import SmallCNN
from niwt_nb.fieldguide.world import field_guide
from niwt_nb.method.store import write_importance
from niwt_nb.network.cut import cut
with seeded(0):
    data = field_guide(n_seen=20, n_unseen=5, images_per_class=(4, 1), size=32, seed=0)
    network = cut(SmallCNN(20, width=8, features=16).eval(), "stage2")
seen = []
def transform(image):
    seen.append(1)
    if len(seen) > 4 + 30: os.kill(os.getpid(), signal.SIGKILL)
    return t.transform(image)
write_importance(network, data, None, transform, {str(tmp_path / "killed")!r}, shard=8, dtype="float32")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = sorted(
        str(p.relative_to(tmp_path / "killed")) for p in (tmp_path / "killed").rglob("*.*")
    )
    # 30 images: three whole shards of 8, nothing half
    assert left == ["importance.json"] + [f"shards/{i:05d}.safetensors" for i in range(3)], left
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").rglob("*.safetensors")}
    store = write_importance(
        network, data, None, transform, tmp_path / "killed", shard=8, dtype="float32"
    )
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert torch.equal(store.rows(), whole.rows()) and store.damaged() == []
    assert torch.equal(
        store.class_importance()["stage2"].mean, whole.class_importance()["stage2"].mean
    )


def test_a_full_disk_or_an_unwritable_folder_leaves_no_half_shard(tmp_path, world, monkeypatch):
    data, network = world
    from niwt_nb import core

    real, calls = core.save_tensors, []

    def full(path, tensors, manifest):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(path, tensors, manifest)

    monkeypatch.setattr(core, "save_tensors", full)
    with pytest.raises(NiwtError, match="the disk is full"):
        write_importance(network, data, None, transform, tmp_path, shard=16)
    assert len(list(tmp_path.glob("shards/*.safetensors"))) == 1
    store = write_importance(network, data, None, transform, tmp_path, shard=16)
    assert store.damaged() == []


def test_a_store_of_another_model_or_transform_is_refused_and_untouched(tmp_path, world):
    data, network = world
    write_importance(network, data, None, transform, tmp_path, shard=32)
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*.*")}
    with seeded(1):
        other = cut(SmallCNN(20, width=8, features=16).eval(), "stage2")
    with pytest.raises(
        NiwtError, match=r"model: the folder has '[0-9a-f]{16}', this run '[0-9a-f]{16}'"
    ):
        write_importance(other, data, None, transform, tmp_path, shard=32)
    with pytest.raises(NiwtError, match="data: the folder has"):
        write_importance(
            network, data, None, lambda image: transform(image) + 1, tmp_path, shard=32
        )
    with pytest.raises(NiwtError, match="method: the folder has 'gradient', this run 'grad_cam'"):
        write_importance(
            ImportanceEngine(network, method="grad_cam"), data, None, transform, tmp_path, shard=32
        )
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*.*")} == before


def test_a_shard_of_another_run_with_a_fitting_name_is_not_used(tmp_path, world):
    data, network = world
    good = write_importance(network, data, None, transform, tmp_path / "a", shard=32)
    write_importance(network, data, data.test_seen, transform, tmp_path / "b", shard=32)
    good.path(0).write_bytes((tmp_path / "b" / "shards" / good.path(0).name).read_bytes())
    assert open_store(tmp_path / "a").damaged() == [0]
    with pytest.raises(NiwtError, match="belongs to something else"):
        good.rows()
    with pytest.warns(UserWarning, match="shard 0: computed again"):
        write_importance(network, data, None, transform, tmp_path / "a", shard=32)
    assert good.damaged() == []


def test_unreadable_images_are_left_out_when_asked(tmp_path, world):
    data, network = world

    def sometimes(image):
        if image.getpixel((0, 0))[0] % 5 == 0:
            raise OSError("truncated")
        return transform(image)

    with pytest.raises(NiwtError, match="truncated"):
        class_importance(network, data, None, sometimes)
    with pytest.warns(UserWarning, match="images left out"):
        store = write_importance(
            network, data, None, sometimes, tmp_path, on_error="skip", shard=16
        )
    index = store.column("index")
    assert 0 < len(index) < len(data.train) and len(store.rows()) == len(index)
    with pytest.warns(UserWarning, match="images left out"):
        means = class_importance(network, data, None, sometimes, on_error="skip")
    assert int(means.count.sum()) == len(index)
    assert cmp("means", store.class_importance()["stage2"].mean, means.mean, tol=2e-6).close


def test_memory_stays_flat_while_images_stream(world):
    "After the first batches 3,000 more images may not add up to anything (1 MB of slack for every 100 images)."
    data, network = world
    every = data.train.repeat(45)
    engine, process, seen, marks = ImportanceEngine(network), psutil.Process(), 0, []
    place = torch.full((len(data.classes),), -1)
    place[data.seen] = torch.arange(len(data.seen))
    for x, y, _ in batches(data, every, transform):
        for _ in engine.chunks(x, place[y]):
            pass
        seen += len(x)
        marks.append((seen, process.memory_info().rss / 2**20))
    early = max(rss for n, rss in marks if n <= 600)
    assert marks[-1][0] > 3000 and marks[-1][1] - early < 30, marks[-1]
