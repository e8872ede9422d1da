"""Checkers of lesson 4 A classifier from words. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise

# %% 4.1
g_ = torch.Generator().manual_seed(0)
G_, w_ = torch.randn(3, 4, 5, generator=g_), torch.randn(5, generator=g_)
check_4_1 = Exercise(
    number="4.1",
    title="Importance from G",
    reference=lambda G, w: (G @ w).mean(0),
    inputs=[(G_, w_), (G_[:2], -w_)],
    mistakes={
        "That is one importance for each picture: take the mean over the pictures.": lambda G, w: (
            G @ w
        ),
        "You sum over the pictures: take the mean.": lambda G, w: (G @ w).sum(0),
        "The mean goes over the pictures (first axis), not over the neurons.": lambda G, w: (
            (G @ w).mean(1)
        ),
    },
)


# %% 4.2
def pull_(w, prior, lam):
    return lam / 2 * ((w - prior) ** 2).sum()


def loss_(G, w, a, prior, lam):
    return 1 - torch.cosine_similarity(G @ w, a[None]).mean() + pull_(w, prior, lam)


a_, p_ = torch.randn(4, generator=g_), torch.randn(5, generator=g_)
check_4_2 = Exercise(
    number="4.2",
    title="The loss",
    reference=loss_,
    level=2,
    inputs=[(G_, w_, a_, p_, 0.3), (G_[:2], p_, a_, w_, 1.0)],
    mistakes={
        "You pull towards zero. The pull goes to the mean seen weight.": lambda G, w, a, p, lam: (
            loss_(G, w, a, 0 * p, lam)
        ),
        "The half is missing: lam / 2.": lambda G, w, a, p, lam: loss_(
            G, w, a, p, 2 * lam
        ),
        "The penalty is missing.": lambda G, w, a, p, lam: loss_(G, w, a, p, 0.0),
        "That is the cosine of the mean importance. Take a cosine for each picture, then their mean.": lambda G, w, a, p, lam: (
            1 - torch.cosine_similarity((G @ w).mean(0), a, dim=0) + pull_(w, p, lam)
        ),
        "You reward the wrong thing: a good cosine makes this loss large. It is 1 minus the cosine.": lambda G, w, a, p, lam: (
            torch.cosine_similarity(G @ w, a[None]).mean() + pull_(w, p, lam)
        ),
        "You sum over the pictures: take the mean.": lambda G, w, a, p, lam: (
            (1 - torch.cosine_similarity(G @ w, a[None])).sum() + pull_(w, p, lam)
        ),
        "You sum the cosines of the pictures: take their mean.": lambda G, w, a, p, lam: (
            1 - torch.cosine_similarity(G @ w, a[None]).sum() + pull_(w, p, lam)
        ),
        "The length is not squared.": lambda G, w, a, p, lam: (
            loss_(G, w, a, p, 0.0) + lam / 2 * (w - p).norm()
        ),
    },
)


# %% 4.3
def solve_(G, a, prior, lam):
    return prior + torch.linalg.solve(
        G.T @ G + lam * torch.eye(G.shape[1]).to(G), G.T @ (a - G @ prior)
    )


check_4_3 = Exercise(
    number="4.3",
    title="Solve it",
    reference=solve_,
    level=2,
    inputs=[
        (G_[0].double(), a_.double(), p_.double(), 0.5),
        (G_[1].double(), a_.double(), p_.double(), 2.0),
    ],
    mistakes={
        "You forgot what the prior already does: solve for a - G prior.": lambda G, a, p, lam: (
            p + torch.linalg.solve(G.T @ G + lam * torch.eye(G.shape[1]).to(G), G.T @ a)
        ),
        "You start at zero. Start at the prior, and add it at the end.": lambda G, a, p, lam: (
            solve_(G, a, 0 * p, lam)
        ),
        "You add lam to every entry. Only the diagonal gets it: `lam * torch.eye(D)`.": lambda G, a, p, lam: (
            p + torch.linalg.solve(G.T @ G + lam, G.T @ (a - G @ p))
        ),
        "The prior is missing at the end.": lambda G, a, p, lam: (
            solve_(G, a, p, lam) - p
        ),
    },
)


# %% 4.4
def scores_(F, w, std, mean):
    w = w * std / (F @ w).std()
    return torch.cat([w, (mean - (F @ w).mean())[None]])


F_ = torch.randn(9, 5, generator=g_).double() + 1
check_4_4 = Exercise(
    number="4.4",
    title="Mean and spread of new scores",
    reference=scores_,
    level=3,
    inputs=[(F_, w_.double(), 2.0, 1.0), (F_[:6], p_.double(), 0.5, -3.0)],
    mistakes={
        "The bias belongs to the scaled w, not to the one given.": lambda F, w, s, v: (
            torch.cat([w * s / (F @ w).std(), (v - (F @ w).mean())[None]])
        ),
        "You take the mean itself as the bias. The scores have a mean already: take it off.": lambda F, w, s, v: (
            torch.cat([w * s / (F @ w).std(), torch.as_tensor([v]).to(w)])
        ),
        "You scale the length of w. Scale the standard deviation of its scores.": lambda F, w, s, v: (
            torch.cat([w * s / w.norm(), (v - (F @ (w * s / w.norm())).mean())[None]])
        ),
        "You add the mean of the scores: the bias must take it off.": lambda F, w, s, v: (
            torch.cat(
                [
                    scores_(F, w, s, v)[:-1],
                    (v + (F @ scores_(F, w, s, v)[:-1]).mean())[None],
                ]
            )
        ),
    },
)
