"""Checkers of lesson 5 Is it any good?. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise


# %% 5.1
def h_(S, U):
    return 2 * S * U / (S + U) if S + U else 0.0


check_5_1 = Exercise(
    number="5.1",
    title="The harmonic mean",
    reference=h_,
    inputs=[(0.8, 0.2), (0.0, 0.0), (0.9, 0.6)],
    mistakes={
        "That is the arithmetic mean: it rewards a classifier that ignores the unseen species.": lambda S, U: (
            (S + U) / 2
        ),
        "That is the geometric mean.": lambda S, U: (S * U) ** 0.5,
        "That is the smaller of the two: H lies above it, and rises with the other.": lambda S, U: (
            min(S, U)
        ),
        "That is the product: divide by the sum, and double.": lambda S, U: S * U,
        "The factor 2 is missing: H of two equal numbers is that number.": lambda S, U: (
            h_(S, U) / 2
        ),
    },
)


# %% 5.2
def mean_(named, true):
    return float(
        torch.stack(
            [(named[true == c] == c).float().mean() for c in true.unique()]
        ).mean()
    )


check_5_2 = Exercise(
    number="5.2",
    title="A mean over species",
    reference=mean_,
    level=2,
    inputs=[
        (torch.tensor([0, 0, 0, 0, 1, 2]), torch.tensor([0, 0, 0, 1, 1, 2])),
        (torch.tensor([3, 3, 5, 3]), torch.tensor([3, 5, 5, 5])),
    ],
    mistakes={
        "That is the share among pictures. First take the share within each class, then the mean.": lambda n, t: (
            float((n == t).float().mean())
        ),
        "You group by what was named. Group by the true class.": lambda n, t: mean_(
            t, n
        ),
    },
)


# %% 5.3
def stack_(scores, seen, gamma):
    out = scores.clone()
    out[:, seen] -= gamma
    return out


x_, s_ = torch.tensor([[1.0, 2, 3], [0, 5, 1]]), torch.tensor([0, 2])


def others_(scores, seen, gamma):
    out = scores - gamma
    out[:, seen] += gamma
    return out


check_5_3 = Exercise(
    number="5.3",
    title="Stacking",
    reference=stack_,
    level=2,
    inputs=[(x_, s_, 0.5), (x_, s_[:1], -1.0)],
    mistakes={
        "Taken off every class, gamma changes nothing. Only the seen ones.": lambda s, i, g: (
            s - g
        ),
        "The wrong sign: gamma is taken off.": lambda s, i, g: stack_(s, i, -g),
        "You took it off the unseen classes.": others_,
    },
)


# %% 5.4
def area_(U, S):
    return float(((U[1:] - U[:-1]) * (S[1:] + S[:-1]) / 2).sum())


check_5_4 = Exercise(
    number="5.4",
    title="The area",
    reference=area_,
    level=3,
    inputs=[
        (torch.tensor([0.0, 0.5, 0.6, 0.9]), torch.tensor([1.0, 0.9, 0.5, 0.0])),
        (torch.tensor([0.0, 0.2, 0.7]), torch.tensor([0.8, 0.6, 0.0])),
    ],
    mistakes={
        "The wrong sign: U rises, so each width is the later U minus the earlier one.": lambda U, S: (
            -area_(U, S)
        ),
        "You take the mean of S. Each stretch counts by its width in U.": lambda U, S: (
            float(S.mean())
        ),
        "You use the left end of each stretch: too much. Take the mean of both ends.": lambda U, S: (
            float(((U[1:] - U[:-1]) * S[:-1]).sum())
        ),
        "You use the right end of each stretch: too little. Take the mean of both ends.": lambda U, S: (
            float(((U[1:] - U[:-1]) * S[1:]).sum())
        ),
    },
)


# %% 5.5
def auroc_(known, strangers):
    return float((known[:, None] > strangers).float().mean())


check_5_5 = Exercise(
    number="5.5",
    title="Known or stranger",
    reference=auroc_,
    level=2,
    inputs=[
        (torch.tensor([2.0, 3.0, 4.0, 1.5]), torch.tensor([1.0, 2.5, 0.5])),
        (torch.tensor([0.3, 0.1]), torch.tensor([0.2, 0.0, 0.4, 0.7])),
    ],
    mistakes={
        "The other way round: count the pairs in which the known picture has the larger one.": lambda k, s: (
            1 - auroc_(k, s)
        ),
        "You compare with the mean stranger. Compare with each of them.": lambda k, s: (
            float((k > s.mean()).float().mean())
        ),
        "That is the number of pairs. Divide by how many there are.": lambda k, s: (
            auroc_(k, s) * len(k) * len(s)
        ),
    },
)
