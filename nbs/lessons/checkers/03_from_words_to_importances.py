"""Checkers of lesson 3 From words to importances. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise

# %% 3.1
T_ = torch.tensor([[1.0, 0, 2], [3, 1, 4], [9, 5, 30], [7, -2, 1]])
check_3_1 = Exercise(
    number="3.1",
    title="Take off the mean",
    reference=lambda t, s: t - t[s].mean(0),
    inputs=[(T_, torch.tensor([0, 1])), (T_, torch.tensor([3, 0, 1]))],
    mistakes={
        "You take the mean over all rows. The unseen ones may not be used.": lambda t, s: (
            t - t.mean(0)
        ),
        "You take the mean of each row. Each word (column) has its own mean.": lambda t, s: (
            t - t.mean(1, keepdim=True)
        ),
        "You add the mean: take it off.": lambda t, s: t + t[s].mean(0),
    },
)


# %% 3.2
def cosine_(p, y):
    return (p * y).sum(1) / p.norm(dim=1) / y.norm(dim=1)


g_ = torch.Generator().manual_seed(0)
P_, Q_ = torch.randn(4, 6, generator=g_) + 1, torch.randn(4, 6, generator=g_) + 1
check_3_2 = Exercise(
    number="3.2",
    title="The centred cosine",
    reference=lambda p, y, m: cosine_(p - m, y - m),
    level=2,
    inputs=[(P_, Q_, Q_.mean(0)), (P_, 2 * P_, torch.ones(6))],
    mistakes={
        "That is the raw cosine: take `mean` off both first.": lambda p, y, m: cosine_(
            p, y
        ),
        "You take the mean off one of the two only.": lambda p, y, m: cosine_(p - m, y),
        "That is the dot product: divide by both lengths.": lambda p, y, m: (
            (p - m) * (y - m)
        ).sum(1),
        "You take off the mean of each row (Pearson). Take off `mean`, one number a neuron.": lambda p, y, m: (
            cosine_(p - p.mean(1, keepdim=True), y - y.mean(1, keepdim=True))
        ),
    },
)


# %% 3.3
def ridge_(X, Y, penalty):
    return Y.T @ X @ torch.linalg.inv(X.T @ X + penalty * torch.eye(X.shape[1]).to(X))


A_, B_ = (
    torch.randn(8, 3, generator=g_).double(),
    torch.randn(8, 2, generator=g_).double(),
)
check_3_3 = Exercise(
    number="3.3",
    title="The normal equations",
    reference=ridge_,
    level=2,
    inputs=[(A_, B_, 1.0), (A_[:5], B_[:5], 0.3)],
    mistakes={
        "The penalty is missing.": lambda X, Y, p: ridge_(X, Y, 0.0),
        "You add the penalty to every entry. Only the diagonal gets it: `penalty * torch.eye(A)`.": lambda X, Y, p: (
            Y.T @ X @ torch.linalg.inv(X.T @ X + p)
        ),
        "The inverse is missing: you multiply where you should divide.": lambda X, Y, p: (
            Y.T @ X @ (X.T @ X + p * torch.eye(X.shape[1]).to(X))
        ),
    },
)


# %% 3.4
def fit_(X, Y):
    return ridge_(X, Y, 1.0)


def loo_(X, Y, fit):
    rows = []
    for i in range(len(X)):
        keep = torch.arange(len(X)) != i
        mx, my = X[keep].mean(0), Y[keep].mean(0)
        rows.append((X[i] - mx) @ fit(X[keep] - mx, Y[keep] - my).T + my)
    return torch.stack(rows)


def all_in_(X, Y, fit):
    mx, my = X.mean(0), Y.mean(0)
    return (X - mx) @ fit(X - mx, Y - my).T + my


def leak_(X, Y, fit):
    mx, my, rows = X.mean(0), Y.mean(0), []
    for i in range(len(X)):
        keep = torch.arange(len(X)) != i
        rows.append((X[i] - mx) @ fit(X[keep] - mx, Y[keep] - my).T + my)
    return torch.stack(rows)


def no_mean_(X, Y, fit):
    return loo_(X, Y, fit) - torch.stack(
        [Y[torch.arange(len(Y)) != i].mean(0) for i in range(len(Y))]
    )


check_3_4 = Exercise(
    number="3.4",
    title="Leave one out",
    reference=loo_,
    level=3,
    inputs=[(A_ + 1, B_ + 2, fit_), (A_[:5] - 1, B_[:5] + 1, fit_)],
    mistakes={
        "You fit on all species, the one to be predicted as well.": all_in_,
        "The means are those of all species: the species left out has a say in them.": leak_,
        "The mean of Y is missing: add it again at the end.": no_mean_,
    },
)
