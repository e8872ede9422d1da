"""Checkers of lesson 7 Explaining, in pictures and words. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise

# %% 7.1
h_ = torch.tensor([[1.0, 3, 0], [-2, 4, 0], [2, 0, 0]])
m_ = torch.tensor([[False, True, False], [True, True, False], [False, False, False]])
check_7_1 = Exercise(
    number="7.1",
    title="Energy inside",
    reference=lambda h, m: float((h.clamp_min(0) * m).sum() / h.clamp_min(0).sum()),
    inputs=[(h_, m_), (h_.T, m_), (h_.abs(), ~m_)],
    mistakes={
        "Negative values take energy away in your sum. They count as nothing: `.clamp_min(0)` first.": lambda h, m: (
            float((h * m).sum() / h.sum())
        ),
        "You count what is negative by its size. It counts as nothing: `.clamp_min(0)`, not `.abs()`.": lambda h, m: (
            float((h.abs() * m).sum() / h.abs().sum())
        ),
        "That is the mean inside the bird. Divide by the energy of the whole map, not by the number of "
        "pixels.": lambda h, m: float(h.clamp_min(0)[m].mean()),
        "That counts pixels. Weigh each pixel with the map.": lambda h, m: float(
            ((h > 0) & m).sum() / (h > 0).sum()
        ),
        "That is the energy outside.": lambda h, m: float(
            (h.clamp_min(0) * ~m).sum() / h.clamp_min(0).sum()
        ),
    },
)


# %% 7.2
a_, A_ = torch.tensor([1.0, -2, 0.5]), torch.arange(12.0).reshape(3, 2, 2).flip(0) - 5
check_7_2 = Exercise(
    number="7.2",
    title="Grad-CAM by hand",
    reference=lambda a, A: torch.einsum("k,khw->hw", a, A).clamp_min(0),
    level=2,
    inputs=[
        (a_, A_),
        (torch.tensor([-1.0, 1]), torch.tensor([[[1.0, 0, 2]], [[0, 3, 1]]])),
    ],
    mistakes={
        "The ReLU is missing: keep only what speaks for the class.": lambda a, A: (
            torch.einsum("k,khw->hw", a, A)
        ),
        "You cut off the negative importances before adding up. Neurons that speak against must be "
        "allowed to; cut off at the end.": lambda a, A: torch.einsum(
            "k,khw->hw", a.clamp_min(0), A
        ),
        "You cut off each neuron's map before adding up. Add first, then keep the positive part.": lambda a, A: (
            (a[:, None, None] * A).clamp_min(0).sum(0)
        ),
        "That is the mean over neurons. It is their sum.": lambda a, A: (
            (a[:, None, None] * A).mean(0).clamp_min(0)
        ),
    },
)


# %% 7.3
s_, t_ = (
    torch.tensor([0.1, 2.0, -1.2, 1.5, 0.3, 1.0]),
    torch.tensor([True, True, False, False, True, True]),
)
check_7_3 = Exercise(
    number="7.3",
    title="True words",
    reference=lambda s, t, k: float(t[s.topk(k).indices].float().mean()),
    level=2,
    inputs=[(s_, t_, 3), (s_, t_, 2), (-s_, t_, 1), (s_.flip(0), t_, 4)],
    mistakes={
        "That is recall: the share of the true attributes that you named. Divide by k.": lambda s, t, k: (
            float(t[s.topk(k).indices].float().sum() / t.sum())
        ),
        "You took the weakest attributes. `topk` or `argsort(descending=True)` gives the strongest.": lambda s, t, k: (
            float(t[s.argsort()[:k]].float().mean())
        ),
        "You took the largest sizes. A large negative strength says that the attribute is absent.": lambda s, t, k: (
            float(t[s.abs().topk(k).indices].float().mean())
        ),
        "You took the first k attributes, not the k strongest.": lambda s, t, k: float(
            t[:k].float().mean()
        ),
        "That is a number of words. Divide by k.": lambda s, t, k: float(
            t[s.topk(k).indices].float().sum()
        ),
    },
)


# %% 7.4
d_, r_ = torch.tensor([2.0, 4, 3]), torch.tensor([1.0, 0.01, 2])
check_7_4 = Exercise(
    number="7.4",
    title="One number for many",
    reference=lambda d, r: float(d.mean() / r.mean()),
    level=2,
    inputs=[(d_, r_), (torch.tensor([1.0, 3, 5.5]), torch.tensor([-0.5, 1.5, 0.1]))],
    mistakes={
        "The mean of the ratios is ruled by pictures whose random fall happens to be near 0. Divide the "
        "means.": lambda d, r: float((d / r).mean()),
        "Those are medians: they leave out the pictures where much falls. Take the means.": lambda d, r: (
            float(d.median() / r.median())
        ),
        "That is a difference. How many times larger?": lambda d, r: float(
            (d - r).mean()
        ),
        "Upside down: that is random over named.": lambda d, r: float(
            r.mean() / d.mean()
        ),
    },
)


# %% 7.5
with torch.no_grad():
    before_ = net(pixels).argmax(1)


def judge_blind(neurons):
    "What is wrong with a list of neurons to silence; empty if the bird loses its name and the others keep theirs."
    if not isinstance(neurons, (list, tuple, torch.Tensor)):
        return "Give a list of neuron numbers, such as [3, 14]."
    neurons = [int(k) for k in neurons]
    if len(set(neurons)) > 3:
        return f"Those are {len(set(neurons))} neurons; at most three."
    if any(k < 0 or k > 71 for k in neurons):
        return "The neurons are numbered 0 to 71."
    view = edit_neurons(net, 72, zero=neurons)
    with torch.no_grad():
        still, kept = (
            int(view(x).argmax(1)) == row,
            float((view(pixels).argmax(1) == before_).float().mean()),
        )
    if still:
        return (
            "The bird keeps its name. Which neurons add most to its score? Importance alone is not "
            "enough: a neuron must also be active in this picture. And what matters in the end is "
            "which neurons favour it over the species that comes second."
        )
    return (
        ""
        if kept >= 0.85
        else f"The bird lost its name, but only {kept:.0%} of the other pictures kept theirs. "
        "Choose neurons that matter less to others."
    )


beta_ = layer_gradient(net, A, net.head.weight[int(told.runner_up[0])]).mean((2, 3))
adds_ = (alpha[0] - beta_[0]) * A[0].mean((1, 2))
check_7_5 = Exercise(
    number="7.5",
    title="Blind to one bird",
    reference=adds_.topk(3).indices.tolist(),
    judge=judge_blind,
    level=3,
    mistakes={
        "at most three": list(range(9)),
        "The bird keeps its name": adds_.topk(2, largest=False).indices.tolist(),
        "numbered 0 to 71": [72],
        "Give a list": "green",
    },
)


# %% 7.6
has_, lacks_ = (
    torch.tensor([True, True, True, False, False, True]),
    torch.tensor([False, True, False, True, False, False]),
)
odds_ = torch.tensor([2.0, 3.0, -4.0, 5.0, 1.5, 0.5])
check_7_6 = Exercise(
    number="7.6",
    title="A and not B",
    reference=lambda a, b, f: a & ~b & (f > 1),
    inputs=[(has_, lacks_, odds_), (lacks_, has_, odds_), (has_, lacks_, odds_ + 1)],
    mistakes={
        "Some of these words B has as well. They speak for both: ask also that B lacks them.": lambda a, b, f: (
            a & (f > 1)
        ),
        "Some of these words are not in the picture. The descriptions alone are a recital: ask also that "
        "`found` is above 1.": lambda a, b, f: a & ~b,
        "Those words tell B from A. Turn it round.": lambda a, b, f: b & ~a & (f > 1),
        "You also count words that B has and A lacks. They speak for B.": lambda a, b, f: (
            (a ^ b) & (f > 1)
        ),
        "Above 0 is too little: a word is found above 1, where it is about three times likelier there than "
        "not.": lambda a, b, f: a & ~b & (f > 0),
    },
)


# %% 7.7
yes_ = torch.tensor([[3.0, 0, 1], [2, 0, 9], [1, 0, 4], [2, 5, 0]])
no_ = torch.tensor([[1.0, 0, 2], [2, 0, 3], [3, 1, 1], [1, 4, 8]])
check_7_7 = Exercise(
    number="7.7",
    title="Draw and see",
    reference=lambda s, o: ((s > o).float() + 0.5 * (s == o).float()).mean(0),
    level=2,
    inputs=[(yes_, no_), (no_, yes_), (yes_[:2], no_[:2])],
    mistakes={
        "Equal answers count nothing in your share. They say neither yes nor no: count half a pair.": lambda s, o: (
            (s > o).float().mean(0)
        ),
        "Equal answers count as wins in your share. They say neither yes nor no: count half a pair.": lambda s, o: (
            (s >= o).float().mean(0)
        ),
        "You compared every bird with every other. Only the two drawings of one bird differ in the attribute "
        "alone: compare row with row.": lambda s, o: (
            (s[:, None] > o[None]).float() + 0.5 * (s[:, None] == o[None]).float()
        ).mean((0, 1)),
        "That is how often the bird without the attribute wins.": lambda s, o: (
            (s < o).float() + 0.5 * (s == o).float()
        ).mean(0),
        "That is a difference of means, which one loud picture can rule. Count pairs.": lambda s, o: (
            (s - o).mean(0)
        ),
        "That is one number for all neurons. Take the mean over pairs alone, `.mean(0)`.": lambda s, o: (
            ((s > o).float() + 0.5 * (s == o).float()).mean()
        ),
    },
)
