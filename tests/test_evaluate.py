"Properties of the metrics that no single example shows, and a proof that the selection code cannot see test classes."

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from niwt_nb.core import NiwtError
from niwt_nb.data.dataset import DomainKnowledge, NoImages, ZeroShotData
from niwt_nb.evaluate.baselines import DEM, ESZSL, _SAE, _ClassNorm
from niwt_nb.evaluate.heads import _ICIS, _PublishedNIWT, WeightRegression
from niwt_nb.evaluate.selection import Encoded, measure, _select, table_rows
from niwt_nb.method.metrics import (
    ausuc,
    chance,
    choose_gamma,
    gzsl,
    seen_unseen_curve,
    stack,
)
from niwt_nb.method.niwt import NIWT, choose_settings
from niwt_nb.method.ranking import Baseline, RankingForm
from niwt_nb.network.head import rows_of

NUMBERS = ("U", "S", "H", "T1")
settings.register_profile("evaluate", deadline=None)
settings.load_profile("evaluate")


@st.composite
def cases(draw, min_side=1):
    "Scores, labels, seen and unseen of a small random problem; every side has an image, some classes have none, ties are frequent."
    seed, n, seen, unseen = (
        draw(st.integers(0, 2**32 - 1)),
        draw(st.integers(4, 60)),
        draw(st.integers(min_side, 5)),
        draw(st.integers(min_side, 4)),
    )
    rng = np.random.default_rng(seed)
    classes = seen + unseen + draw(st.integers(0, 2))  # some ids take no part
    ids = rng.permutation(classes)[: seen + unseen]
    labels = np.concatenate([ids[[0, -1]], rng.choice(ids, n - 2)])
    scores = rng.normal(size=(n, classes))
    scores[np.arange(n), labels] += draw(st.sampled_from([0.0, 1.0, 3.0]))
    if draw(st.booleans()):
        scores = scores.round(0)  # many ties, within images and between gaps
    return scores, labels, ids[:seen], ids[seen:]


def everything(scores, labels, seen, unseen, gamma=0.3):
    r = gzsl(scores, labels, seen, unseen, gamma)
    return np.array([*(getattr(r, k) for k in NUMBERS), ausuc(scores, labels, seen, unseen)])


def untied(scores):
    "Ties go to the lower id, so renumbering classes may only be asked for without them."
    return scores + 1e-4 * np.random.default_rng(0).normal(size=scores.shape)


@given(cases(), st.integers(0, 1000))
def test_renumbering_classes_and_reordering_images_changes_nothing(case, seed):
    scores, labels, seen, unseen = case
    scores, rng = untied(scores), np.random.default_rng(seed)
    before = everything(scores, labels, seen, unseen)
    to, order = rng.permutation(scores.shape[1]), rng.permutation(len(labels))
    moved = np.empty_like(scores)
    moved[:, to] = scores
    after = everything(
        moved[order], to[labels][order], rng.permutation(to[seen]), rng.permutation(to[unseen])
    )
    np.testing.assert_allclose(before, after, atol=1e-12)
    assert choose_gamma(scores, labels, seen, unseen) == pytest.approx(
        choose_gamma(moved[order], to[labels][order], to[seen], to[unseen]), abs=1e-9
    )


@given(cases(), st.integers(1, 4))
def test_duplicated_images_of_one_class_change_nothing(case, copies):
    scores, labels, seen, unseen = case
    again = np.concatenate(
        [np.arange(len(labels)), *[np.flatnonzero(labels == labels[0])] * copies]
    )
    np.testing.assert_allclose(
        everything(scores, labels, seen, unseen),
        everything(scores[again], labels[again], seen, unseen),
        atol=1e-12,
    )
    assert choose_gamma(scores, labels, seen, unseen) == pytest.approx(
        choose_gamma(scores[again], labels[again], seen, unseen)
    )


@given(cases(min_side=2))
def test_a_class_without_images_is_left_out_of_the_means(case):
    scores, labels, seen, unseen = case
    gone = labels != seen[-1]
    if not np.isin(labels[gone], seen).any():
        return
    r = gzsl(scores[gone], labels[gone], seen, unseen)
    table = r.per_class.set_index("class")
    assert np.isnan(table.accuracy[seen[-1]]) and table.images[seen[-1]] == 0
    assert pytest.approx(table.accuracy[[c for c in seen if table.images[c]]].mean()) == r.S
    assert 0 <= ausuc(scores[gone], labels[gone], seen, unseen) <= 1


@given(cases())
def test_a_column_of_minus_infinity_is_never_predicted_and_columns_of_others_never_read(case):
    scores, labels, seen, unseen = case
    other = np.setdiff1d(np.arange(scores.shape[1]), np.concatenate([seen, unseen]))
    strange = scores.copy()
    strange[:, other] = np.nan
    np.testing.assert_array_equal(
        everything(scores, labels, seen, unseen), everything(strange, labels, seen, unseen)
    )
    silent = scores.copy()
    silent[:, unseen] = -np.inf
    assert (
        gzsl(silent, labels, seen, unseen, gamma=1e6).U
        == 0
        == gzsl(silent, labels, seen, unseen).T1
    )
    assert ausuc(silent, labels, seen, unseen) == 0


@given(cases(), st.floats(0.1, 10), st.integers(0, 1000))
def test_the_curve_is_what_scoring_at_each_gamma_gives(case, scale, seed):
    scores, labels, seen, unseen = case
    curve = seen_unseen_curve(scores, labels, seen, unseen)
    assert (
        curve.gamma.is_monotonic_increasing
        and curve.U.is_monotonic_increasing
        and curve.S.is_monotonic_decreasing
    )
    for row in curve.itertuples():
        r = gzsl(scores, labels, seen, unseen, gamma=row.gamma)
        assert pytest.approx((row.S, row.U, row.H), abs=1e-12) == (r.S, r.U, r.H)
    area = ausuc(scores, labels, seen, unseen)
    assert area <= curve.S.max() * curve.U.max() + 1e-12
    shifted = scale * untied(scores) + np.random.default_rng(seed).normal(size=(len(scores), 1))
    assert ausuc(shifted, labels, seen, unseen) == pytest.approx(
        ausuc(untied(scores), labels, seen, unseen), abs=1e-9
    )


@given(cases(), st.floats(-5, 5))
def test_no_gamma_beats_the_chosen_one(case, gamma):
    scores, labels, seen, unseen = case
    scores = untied(scores)
    best = choose_gamma(scores, labels, seen, unseen)
    assert (
        gzsl(scores, labels, seen, unseen, best).H
        >= gzsl(scores, labels, seen, unseen, gamma).H - 1e-12
    )


@given(cases(), st.floats(-3, 3), st.floats(-3, 3))
def test_calibration_composes(case, a, b):
    scores, labels, seen, unseen = case
    s = torch.as_tensor(untied(scores))
    left = everything(stack(s, torch.as_tensor(seen), a), labels, seen, unseen, b)
    np.testing.assert_allclose(left, everything(s, labels, seen, unseen, a + b), atol=1e-12)


@given(st.integers(1, 300), st.integers(1, 300))
def test_calibrated_chance_is_never_worse(n, m):
    raw, best = chance(n, m), chance(n, m, calibrated=True)
    assert best["H"] >= raw["H"] - 1e-15 and raw["H"] == pytest.approx(1 / (n + m))
    assert best["H"] <= 2 * best["AUSUC"] ** 0.5


def test_no_images_of_a_side_is_an_error_and_scores_may_be_float16_on_any_layout():
    scores = torch.eye(4, dtype=torch.float16).T
    assert gzsl(scores, [0, 1, 2, 3], [0, 1], [2, 3]).H == 1
    with pytest.raises(NiwtError, match="no image of any seen class"):
        gzsl(scores, [2, 3, 2, 3], [0, 1], [2, 3])
    groups = SimpleNamespace(seen=[0, 1], unseen=[2, 3])
    rows = table_rows("m", scores, [0, 1, 2, 3], groups, ("k", 0.1, 0), biased=False)
    assert rows[0]["gamma"] == 0 and rows[1]["gamma"] == 0.1


# ---- the estimators


def world(n_seen=20, n_unseen=5, per_class=8, width=12, attributes=6, seed=0):
    g, C = torch.Generator().manual_seed(seed), n_seen + n_unseen
    K = torch.randn(C, attributes, generator=g)
    y = torch.arange(C).repeat_interleave(per_class)
    x = K[y] @ torch.randn(attributes, width, generator=g) + 0.4 * torch.randn(
        len(y), width, generator=g
    )
    i = torch.arange(len(y))
    old, late = y < n_seen, i % per_class >= 6
    order = torch.randperm(C, generator=g)  # seen and unseen ids are mixed
    table = torch.empty_like(K)
    table[order] = K
    knowledge = {
        "attributes": DomainKnowledge(
            "attributes", table, tuple(f"a{j}" for j in range(attributes))
        )
    }
    names = tuple(f"class {c}" for c in range(C))
    ids = order[:n_seen], order[n_seen:]
    return ZeroShotData(
        "world",
        names,
        NoImages(len(y)),
        order[y],
        *ids,
        i[old & ~late],
        i[old & late],
        i[~old],
        knowledge,
        features=x,
    )


ESTIMATORS = {
    "ESZSL": ESZSL(0.1, 0.1),
    "SAE": _SAE(0.3),
    "DeViSE": RankingForm("devise", epochs=20, lr=1e-2),
    "SJE": RankingForm("sje", epochs=20, lr=1e-2),
    "ALE": RankingForm("ale", epochs=20, lr=1e-2),
    "DEM": DEM(hidden=32, steps=200, lr=3e-3),
    "ClassNorm": _ClassNorm(hidden=32, epochs=40, lr=3e-3, features="centre"),
    "WeightRegression": WeightRegression(0.1, l2=1e-3),
    "ICIS": _ICIS(hidden=64, epochs=300, lr=1e-3, l2=1e-3),
    "PublishedNIWT": _PublishedNIWT(l2=1e-2, knowledge="centre", max_steps=1000),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_uses_knowledge_and_only_that_of_seen_classes(name):
    data = world()
    x, known = data.features, data.get_knowledge().values
    hidden = known.clone()
    hidden[data.unseen] = torch.nan
    args = x[data.train], data.labels[data.train]
    before = torch.get_rng_state()
    scores = ESTIMATORS[name].fit(*args, known).scores(x, known)
    assert torch.equal(before, torch.get_rng_state()), "the caller's random stream moved"
    blind = ESTIMATORS[name].fit(*args, hidden)
    assert torch.equal(blind.scores(x, known), scores), (
        "knowledge of unseen classes leaked into training"
    )
    assert blind.scores(x, hidden)[:, data.unseen].max() == -torch.inf
    assert not scores.requires_grad and scores.shape == (len(x), 25)
    assert gzsl(scores, data.labels, data.seen, data.unseen).T1 > 0.55, "chance is 0.2"
    assert torch.allclose(scores.flip(0), blind.scores(x.flip(0), known), atol=1e-4), (
        "the order of images matters"
    )


class Spy(Baseline):
    "Notes all that it is handed."

    seen_by: list = []

    def fit(self, features, labels, knowledge):
        self.seen_by.append(("fit", features, labels, knowledge))
        return super().fit(features, labels, knowledge)

    def scores(self, features, knowledge):
        self.seen_by.append(("scores", features, None, knowledge))
        return super().scores(features, knowledge)

    def _fit(self, x, k, targets):
        self.form_ = torch.ones(x.shape[1], k.shape[1])

    def _scores(self, x, k):
        return x @ self.form_ @ k.T


def test_selection_is_handed_nothing_of_test_classes():
    data = world()
    val = data.validation()
    Spy.seen_by.clear()
    _select((Spy(), {}), Encoded(data.features[rows_of(val, data)], val))
    test_rows = {
        tuple(r) for r in data.features[torch.cat([data.test_seen, data.test_unseen])].tolist()
    }
    assert len(Spy.seen_by) == 2
    for _, features, labels, knowledge in Spy.seen_by:
        assert not test_rows & {tuple(r) for r in features.tolist()}, "a test image was handed over"
        assert knowledge[data.unseen].isnan().all(), "knowledge of an unseen class was handed over"
        assert (
            labels is None
            or not torch.isin(labels, torch.cat([data.unseen, data.val_classes])).any()
        )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31))
def test_whatever_test_images_and_unseen_knowledge_are_the_choice_is_the_same(seed):
    data, g = world(), torch.Generator().manual_seed(seed)
    grid = {"ridge_features": [0.01, 1.0], "ridge_knowledge": [0.1, 10.0]}
    own = measure("ESZSL", (ESZSL(), grid), Encoded(data.features, data)).selection
    x, known = data.features.clone(), data.get_knowledge().values.clone()
    test = torch.cat([data.test_seen, data.test_unseen])
    x[test] = 100 * torch.randn(len(test), x.shape[1], generator=g)
    known[data.unseen] = 100 * torch.randn(len(data.unseen), known.shape[1], generator=g)
    other = replace(data, knowledge={"attributes": replace(data.get_knowledge(), values=known)})
    chosen = measure("ESZSL", (ESZSL(), grid), Encoded(x, other)).selection
    assert chosen.estimator.get_params() == own.estimator.get_params() and chosen.gamma == own.gamma


def test_with_a_twin_network_the_choice_comes_from_the_twin_alone():
    data, g = world(), torch.Generator().manual_seed(5)
    val = data.validation()
    twin = Encoded(
        data.features[rows_of(val, data)],
        val,
        torch.nn.Linear(12, len(val.seen)).requires_grad_(False),
    )
    head = torch.nn.Linear(12, len(data.seen)).requires_grad_(False)
    chosen = []
    for x in (data.features, 100 * torch.randn(data.features.shape, generator=g)):
        chosen.append(
            choose_settings(
                NIWT(head, keep_rows=False), data, x, (twin.head, twin.features)
            ).settings
        )
    assert chosen[0] == chosen[1]


def test_selection_refuses_the_whole_data_set():
    data = world()
    with pytest.raises(NiwtError, match="needs data.validation"):
        _select((ESZSL(), {}), Encoded(data.features, data))
