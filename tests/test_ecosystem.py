"""Other people's code as it is: torchvision, timm and Hugging Face networks, DataLoaders, transforms.v2, scikit-learn, NumPy and pandas.

Random weights only: nothing is downloaded.
"""

import os
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from niwt_nb.core import NiwtError, import_torchvision
from niwt_nb.data.dataset import DomainKnowledge, ZeroShotData
from niwt_nb.data.images import batches
from niwt_nb.fieldguide.world import field_guide
from niwt_nb.method.engine import neuron_importance
from niwt_nb.method.jacobian import pooled_jacobian
from niwt_nb.method.mapping import CosineLinearMap, KernelRidgeMap, RidgeMap
from niwt_nb.method.solvers import transfer_weights
from niwt_nb.network.backbones import load_backbone
from niwt_nb.network.cut import _scores_of
from niwt_nb.network.head import extend

COLOURS = ("teal", "tan")


def whole_path(path, function: str, layer: str | None = None) -> str:
    "From a file with a function to a network with two more classes; importance agrees with autograd. Returns the layer that was taken."
    backbone = load_backbone(f"{path}:{function}")
    x = torch.stack([backbone.preprocess(Image.new("RGB", (90, 80), c)) for c in COLOURS])
    x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    network = backbone.cut(layer, x)
    with torch.no_grad():
        assert torch.allclose(network(x), _scores_of(backbone.model(x)), atol=1e-4)
    A = network.activations(x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.head(network.tail(A))[:, 2].sum(), A)
    alpha = neuron_importance(network, x, 2)
    assert torch.allclose(alpha, gradient.mean((2, 3)), atol=1e-5 * float(alpha.abs().max()) + 1e-8)
    new = transfer_weights(network, alpha, pooled_jacobian(network, x))
    assert extend(network.head, new.weight, new.bias).out_features == network.head.out_features + 2
    return network.layer


LARGE = pytest.mark.skipif(
    not os.environ.get("NIWT_LONG"),
    reason="a minute for random weights alone: NIWT_LONG=1 python -m pytest tests/test_ecosystem.py",
)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4.0"),
        ("mobilenet_v3_small", "features"),
        pytest.param("convnext_tiny", "features.6", marks=LARGE),
        pytest.param("vit_b_16", "conv_proj", marks=LARGE),
    ],
)
def test_torchvision_networks_by_name_with_their_own_preprocessing(name, layer):
    backbone = load_backbone(name)
    assert backbone.layer == layer
    x = torch.stack([backbone.preprocess(Image.new("RGB", (300, 260), c)) for c in COLOURS])
    assert x.shape[2:] == (224, 224)
    network = backbone.cut(None, x)
    with torch.no_grad():
        assert torch.allclose(
            network.head(network.tail(network.activations(x))), backbone.model(x), atol=1e-3
        )


@pytest.mark.parametrize(
    "name, layer", [("resnet50", "layer4.0"), ("resnet101", "layer4.0"), ("vgg16", "features.29")]
)
def test_the_papers_networks_have_the_papers_layers(name, layer):
    with torch.device("meta"):
        backbone = load_backbone(name)
    assert backbone.layer == layer and backbone.cut().head.out_features == 1000
    assert backbone.preprocess(Image.new("RGB", (300, 260))).shape == (3, 224, 224)


SMALL_TORCHVISION = """
import torch
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.transforms import v2
preprocess = v2.Compose([v2.Resize((64, 64)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
def vit():
    model = VisionTransformer(64, 16, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=32, num_classes=7)
    torch.nn.init.normal_(model.heads.head.weight)  # torchvision begins with zeros
    return model
def convnext(): return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=7)
"""


@pytest.mark.parametrize("name, layer", [("vit", "conv_proj"), ("convnext", "features.3.0")])
def test_kinds_of_networks_of_torchvision(name, layer, tmp_path):
    (tmp_path / "small.py").write_text(SMALL_TORCHVISION)
    assert whole_path(tmp_path / "small.py", name) == layer


TIMM = {
    "resnet10t": "layer3",
    "mobilenetv3_small_050": "blocks",
    "convnext_atto": "stages.2",
    "vit_tiny_patch16_224": "patch_embed.proj",
}


@pytest.mark.parametrize("name, layer", TIMM.items())
def test_timm_networks(name, layer, tmp_path):
    import_torchvision()
    # small pictures: the same parts, a tenth of the time
    more = ", img_size=64" if name.startswith("vit") else ""
    (tmp_path / "of_timm.py").write_text(f"""
import timm
def load():
    model = timm.create_model("{name}", num_classes=7{more}).eval()
    return model, timm.data.create_transform(**timm.data.resolve_model_data_config(model) | dict(input_size=(3, 64, 64)))
""")
    assert whole_path(tmp_path / "of_timm.py", "load") == layer


HUGGING_FACE = """
import numpy, torch
from transformers import (ConvNextConfig, ConvNextForImageClassification, MobileNetV2Config, MobileNetV2ForImageClassification, ResNetConfig,
    ResNetForImageClassification, ViTConfig, ViTForImageClassification)
def preprocess(image): return torch.from_numpy(numpy.array(image.resize((64, 64)))).permute(2, 0, 1) / 255.0
def resnet(): return ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1] * 4, layer_type="basic",
    num_labels=7))
def vit(): return ViTForImageClassification(ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=64,
    patch_size=16, num_labels=7))
def convnext(): return ConvNextForImageClassification(ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 2], num_labels=7))
def mobilenet(): return MobileNetV2ForImageClassification(MobileNetV2Config(depth_multiplier=0.25, image_size=64, num_labels=7))
"""


@pytest.mark.parametrize(
    "name, part",
    [
        ("resnet", "encoder.stages.2"),
        ("vit", "projection"),
        ("convnext", "encoder"),
        ("mobilenet", "mobilenet_v2"),
    ],
)
def test_hugging_face_networks(name, part, tmp_path):
    import_torchvision()
    (tmp_path / "of_hf.py").write_text(HUGGING_FACE)
    assert part in whole_path(tmp_path / "of_hf.py", name)


def test_an_identity_after_the_head_is_no_obstacle(tmp_path):
    (tmp_path / "m.py").write_text("""
from torch import nn
def load():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5), nn.Identity())
""")
    assert whole_path(tmp_path / "m.py", "load") == "1"


@pytest.fixture(scope="module")
def birds() -> ZeroShotData:
    return field_guide(12, 3, (4, 2), size=32)


def test_dataloaders_and_transforms_v2_as_they_are(birds):
    import_torchvision()
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(24),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    ours = torch.cat([x for x, _, _ in batches(birds, birds.train, transform, batch_size=7)])

    def fetch(index, transform=transform):
        return (
            torch.stack([transform(birds.images[int(i)]) for i in index]),
            birds.labels[torch.stack(index)],
            torch.stack(index),
        )

    loader = torch.utils.data.DataLoader(birds.train, batch_size=5, num_workers=0, collate_fn=fetch)
    theirs, labels, index = (torch.cat(part) for part in zip(*loader, strict=True))
    assert (
        torch.equal(ours, theirs)
        and torch.equal(labels, birds.labels[birds.train])
        and torch.equal(index, birds.train)
    )
    random = v2.Compose([transform, v2.RandomHorizontalFlip()])
    sampler = torch.utils.data.WeightedRandomSampler(torch.ones(len(birds.train)), 10)
    x, y, _ = next(
        iter(
            torch.utils.data.DataLoader(
                birds.train,
                batch_size=10,
                sampler=sampler,
                collate_fn=partial(fetch, transform=random),
            )
        )
    )
    assert x.shape == (10, 3, 24, 24) and set(y.tolist()) <= set(birds.seen.tolist())


MAPS = [RidgeMap(alpha=0.5), KernelRidgeMap(), CosineLinearMap(epochs=5)]


@pytest.mark.parametrize("estimator", MAPS, ids=lambda e: type(e).__name__)
def test_maps_are_scikit_learn_estimators(estimator):
    dice = np.random.default_rng(0)
    know, imp = dice.normal(size=(20, 5)), dice.normal(size=(20, 8))
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params() and not hasattr(copy, "coef_")
    piped = make_pipeline(StandardScaler(), copy).fit(know, imp)
    assert piped.predict(know).shape == (20, 8) and np.isfinite(piped.score(know, imp))
    frame = pd.DataFrame(know, columns=list("abcde"))
    assert np.allclose(
        clone(estimator).fit(frame, imp).predict(frame),
        clone(estimator).fit(know, imp).predict(know),
        atol=1e-5,
    )
    tensor = clone(estimator).fit(torch.tensor(know), torch.tensor(imp)).predict(torch.tensor(know))
    assert isinstance(tensor, torch.Tensor) and np.allclose(
        tensor, clone(estimator).fit(know, imp).predict(know), atol=1e-5
    )


def test_a_grid_search_over_a_map():
    dice = np.random.default_rng(0)
    know = dice.normal(size=(30, 4))
    imp = know @ dice.normal(size=(4, 6)) + 0.01 * dice.normal(size=(30, 6))
    found = GridSearchCV(RidgeMap(), {"alpha": [1e-3, 1e3]}, cv=3).fit(know, imp)
    assert found.best_params_ == {"alpha": 1e-3}


def test_knowledge_goes_to_pandas_and_numpy_and_back(birds):
    known = birds.get_knowledge()
    frame = known.to_frame(birds.classes)
    assert list(frame.index) == list(birds.classes)
    again = DomainKnowledge("again", frame, frame.columns)
    assert torch.equal(again.values, known.values) and again.names == known.names
    assert torch.equal(
        DomainKnowledge("again", np.asarray(known.values), known.names).values, known.values
    )
    with pytest.raises(NiwtError, match="expected shape"):
        DomainKnowledge("again", frame.iloc[:, 0], frame.columns[:1])
