"Extended networks outside this package: plain PyTorch, torch.export, ONNX; and Jacobians of real architectures."

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from benchmarks.transfer import join_layers
from niwt_nb.core import NiwtError, import_torchvision
from niwt_nb.fieldguide.network import SmallCNN
from niwt_nb.method.jacobian import (
    PooledJacobian,
    importance_of_weights,
    _jacobian_reverse,
    pooled_jacobian,
)
from niwt_nb.method.solvers import transfer_weights
from niwt_nb.network.cut import cut
from niwt_nb.network.export import export_model, export_onnx, export_program
from niwt_nb.network.head import extend, with_head


@pytest.fixture(scope="module")
def extended():
    "A small network with two classes added, and images."
    torch.manual_seed(0)
    network = cut(SmallCNN(6).eval().requires_grad_(False), "stage2")
    images = torch.rand(4, 3, 64, 64)
    width = network.activations(images[:1]).shape[1]
    new = transfer_weights(network, torch.randn(2, width), images)
    return with_head(network, extend(network.head, new.weight, new.bias)).model, images


NAMES = [f"class {i}" for i in range(8)]

ALONE = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("niwt_nb", "torchvision", "captum", "sklearn"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
sys.path.insert(0, sys.argv[1])
import torch
from model import load
net, classes = load()
assert isinstance(net, torch.nn.Module) and not net.training
torch.save((net(torch.load(sys.argv[2])), classes), sys.argv[3])
"""


def test_the_exported_folder_predicts_without_this_package(extended, tmp_path):
    model, images = extended
    folder = export_model(model, tmp_path / "birds", NAMES, images)
    torch.save(images, tmp_path / "x.pt")
    subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            ALONE,
            str(folder),
            str(tmp_path / "x.pt"),
            str(tmp_path / "y.pt"),
        ],
        check=True,
        cwd=tmp_path,
    )
    scores, classes = torch.load(tmp_path / "y.pt")
    torch.testing.assert_close(scores, model(images).detach(), rtol=1e-4, atol=1e-5)
    assert classes == NAMES
    assert json.loads((folder / "classes.json").read_text())["input"] == [3, 64, 64]


def test_torch_export(extended, tmp_path):
    model, images = extended
    loaded = torch.export.load(export_program(model, tmp_path / "birds.pt2", images)).module()
    for batch in (images[:1], images):
        torch.testing.assert_close(loaded(batch), model(batch), rtol=1e-4, atol=1e-5)


def test_onnx(extended, tmp_path):
    import onnxruntime

    model, images = extended
    path = export_onnx(model, tmp_path / "birds.onnx", images)
    assert [p.name for p in tmp_path.iterdir()] == ["birds.onnx"], "one file, nothing beside it"
    session = onnxruntime.InferenceSession(str(path))
    for batch in (images[:1], images):
        scores = torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])
        torch.testing.assert_close(scores, model(batch).detach(), rtol=1e-3, atol=1e-4)


def test_onnx_without_its_packages_says_what_to_install(extended, tmp_path, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "onnxscript" else real(name, *a),
    )
    with pytest.raises(NiwtError, match="needs onnxscript: pip install"):
        export_onnx(extended[0], tmp_path / "x.onnx", extended[1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, layer, how",
    [
        ("resnet18", "layer4.0", None),
        ("mobilenet_v2", "features.17", "channelwise"),
        ("densenet121", "features.denseblock4", None),
    ],
)
def test_jacobians_of_known_architectures_agree_with_autograd(name, layer, how):
    torch.manual_seed(0)
    network = cut(
        getattr(import_torchvision().models, name)(weights=None).eval().requires_grad_(False), layer
    )
    images, d = torch.rand(2, 3, 64, 64), network.head.in_features
    with torch.no_grad():
        activations = network.activations(images)
    if how is None:  # a few features by reverse mode are enough to compare
        few = _jacobian_reverse(lambda a: network.tail(a)[:, :4], activations)
        weight = torch.cat([torch.randn(2, 4), torch.zeros(2, d - 4)], 1)
        got = torch.einsum("bkd,bd->bk", few, weight[:, :4])
    else:
        jacobian = pooled_jacobian(network, images)
        assert jacobian.how == how
        weight = torch.randn(2, d)
        got = torch.einsum("mkd,md->mk", jacobian.each, weight)
    expected = importance_of_weights(network, activations, weight)
    assert (got - expected).norm() <= 1e-5 * expected.norm()


def test_a_saved_jacobian_refuses_another_layer(extended, tmp_path):
    model, images = extended
    pooled_jacobian(cut(model, "stage2"), images).save(tmp_path / "g.safetensors")
    with pytest.raises(
        NiwtError, match="belongs to layer 'stage2', the network is cut at 'stage1'"
    ):
        PooledJacobian.load(tmp_path / "g.safetensors", cut(model, "stage1"))


def test_the_last_layer_is_recognised_as_importance_equals_weight():
    model = import_torchvision().models.resnet18(weights=None).eval().requires_grad_(False)
    network = cut(model, "layer4")
    jacobian = pooled_jacobian(network, torch.rand(3, 3, 64, 64))
    assert jacobian.how == "affine" and len(jacobian.each) == 1
    torch.testing.assert_close(jacobian.mean * 4, torch.eye(512))  # 2 x 2 positions
    assert isinstance(network.head, nn.Linear)


def test_several_layers_are_demanded_together():
    torch.manual_seed(0)
    network = cut(SmallCNN(6).eval().requires_grad_(False), "stage2")
    images = torch.rand(4, 3, 64, 64)
    lower = pooled_jacobian(network, images, fresh=0)
    each = torch.rand(4, 2, lower.mean.shape[1])
    none = each[:0]
    upper = PooledJacobian(each, each.mean(0), 4, "made up", "upper", "other", none)
    rows = network.head.weight[:3]
    asked = [j.importance(rows).mean(1) for j in (lower, upper)]
    both, demand, scales = join_layers([lower, upper], asked)
    found, width = both.importance(rows), lower.mean.shape[0]
    assert torch.allclose(
        found[..., :width] * scales[0], lower.importance(rows).expand(-1, 4, -1), atol=1e-6
    )
    assert torch.allclose(found[..., width:] * scales[1], upper.importance(rows), atol=1e-6)
    assert (
        torch.allclose(demand.split([width, 2], 1)[1] * scales[1], asked[1])
        and both.layer == "stage2+upper"
    )
    # the joined Jacobian is known to belong to this network
    new = transfer_weights(network, demand, both, solver="lbfgs", lam=0.0)
    assert float(new.cosine.min()) > 0.9
    mean_only = PooledJacobian(none, each.mean(0), 4, "made up", "upper", "other", none)
    assert len(join_layers([lower, mean_only], asked)[0].each) == 0
    with pytest.raises(NiwtError, match="built for another network"):
        transfer_weights(cut(SmallCNN(6).eval(), "stage2"), demand, both)
    with pytest.raises(NiwtError, match="got 1 layers and 0 importances"):
        join_layers([lower], [])
    with pytest.raises(NiwtError, match="its importance has 5"):
        join_layers([upper], [torch.ones(1, 5)])
    with pytest.raises(NiwtError, match="a layer comes twice: upper, upper"):
        join_layers([upper, upper], [asked[1], asked[1]])
