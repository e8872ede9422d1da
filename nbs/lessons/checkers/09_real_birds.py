"""Checkers of lesson 9 Real birds. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise

# %% 9.1
v_, n_ = torch.tensor([0.2, 0.9, 0.5, 0.7]), ["a", "b", "c", "d"]
check_9_1 = Exercise(
    number="9.1",
    title="What people see",
    reference=lambda v, n, k: [n[i] for i in v.topk(k).indices],
    inputs=[(v_, n_, 2), (v_.flip(0), n_, 3), (attributes[bird], words, 4)],
    mistakes={
        "Those are the smallest. Sort from large to small.": lambda v, n, k: [
            n[i] for i in v.argsort()[:k]
        ],
        "Those are places, not names.": lambda v, n, k: v.topk(k).indices.tolist(),
        "The right names, but smallest first.": lambda v, n, k: [
            n[i] for i in v.topk(k).indices.flip(0)
        ],
        "Those are the first k names of the list.": lambda v, n, k: n[:k],
    },
)


# %% 9.2
def nearest_(table, i):
    c = torch.cosine_similarity(table, table[i][None], dim=1)
    c[i] = -2
    return int(c.argmax())


R_ = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 5, 0.2], [0.1, 1, 0], [2, 3, 0]])
check_9_2 = Exercise(
    number="9.2",
    title="The nearest relative",
    reference=nearest_,
    level=2,
    inputs=[(R_, 0), (R_, 3), (R_, 2), (attributes, bird)],
    mistakes={
        "Every species is most similar to itself. Leave row i out.": lambda t, i: int(
            torch.cosine_similarity(t, t[i][None], dim=1).argmax()
        ),
        "That is the least similar one.": lambda t, i: int(
            torch.cosine_similarity(t, t[i][None], dim=1).argmin()
        ),
        "You compare dot products. A long row has large dot products with everything; use the cosine.": lambda t, i: (
            int((t @ t[i]).index_fill(0, torch.tensor([i]), -9e9).argmax())
        ),
    },
)


# %% 9.3
def best_(S, U):
    return int((2 * S * U / (S + U).clamp_min(1e-12)).argmax())


S_, U_ = (
    torch.tensor([0.9, 0.7, 0.5, 0.1, 0.0]),
    torch.tensor([0.0, 0.3, 0.45, 0.95, 1.0]),
)
check_9_3 = Exercise(
    number="9.3",
    title="Choose the balance",
    reference=best_,
    level=2,
    inputs=[
        (S_, U_),
        (torch.tensor([1.0, 0.6, 0.2]), torch.tensor([0.1, 0.3, 0.6])),
        (torch.tensor([0.0, 0.3]), torch.tensor([0.0, 0.3])),
    ],
    mistakes={
        "The plain mean rewards giving up one side altogether. Use the harmonic mean H.": lambda S, U: (
            int((S + U).argmax())
        ),
        "That is where U is largest; S may be nothing there.": lambda S, U: int(
            U.argmax()
        ),
        "That is where S is largest; U may be nothing there.": lambda S, U: int(
            S.argmax()
        ),
        "S = U = 0 gives 0/0, and NaN wins every argmax. Guard the division.": lambda S, U: (
            int((2 * S * U / (S + U)).argmax())
        ),
    },
)


# %% 9.4
def in_box_(heat, box):
    x0, y0, x1, y1 = box
    return float(heat[y0:y1, x0:x1].sum() / heat.sum())


E_ = torch.arange(20.0).reshape(4, 5)
check_9_4 = Exercise(
    number="9.4",
    title="Inside a box",
    reference=in_box_,
    level=2,
    inputs=[
        (E_, (1, 0, 3, 2)),
        (E_.T.contiguous(), (0, 1, 2, 4)),
        (E_ + 1, (2, 1, 4, 4)),
    ],
    mistakes={
        "x and y are mixed up: the first index of a tensor counts rows, that is y.": lambda h, b: (
            float(h[b[0] : b[2], b[1] : b[3]].sum() / h.sum())
        ),
        "You read the box as x, y, width, height. Here x1 and y1 are corners.": lambda h, b: (
            float(h[b[1] : b[1] + b[3], b[0] : b[0] + b[2]].sum() / h.sum())
        ),
        "x1 and y1 are not included.": lambda h, b: float(
            h[b[1] : b[3] + 1, b[0] : b[2] + 1].sum() / h.sum()
        ),
        "That is the mean inside. Divide by the energy of the whole map.": lambda h, b: (
            float(h[b[1] : b[3], b[0] : b[2]].mean())
        ),
    },
)


# %% 9.5
def judge_questions(questions):
    "What is wrong with a choice of 40 attributes; empty if they do nearly as well as all."
    if isinstance(questions, torch.Tensor):
        questions = questions.tolist()
    if not isinstance(questions, (list, tuple)) or not all(
        isinstance(i, int) for i in questions
    ):
        return "Give a list of column numbers."
    if (
        len(set(questions)) != len(questions)
        or len(questions) > 40
        or not all(0 <= i < 312 for i in questions)
    ):
        return (
            f"Give at most 40 different numbers from 0 to 311; these are {len(questions)}, "
            f"{len(set(questions))} of them different."
        )
    table = attributes[:, list(questions)]
    t1 = judge(*write(table)[0])[0].T1
    return (
        ""
        if t1 >= 0.40
        else f"T1 is {t1:.2f}. Ask where the species differ: what all of them have, or none, tells "
        "nothing. How much does each column vary over the seen species?"
    )


check_9_5 = Exercise(
    number="9.5",
    title="Forty questions",
    reference=attributes[seen].var(0).topk(40).indices.tolist(),
    judge=judge_questions,
    level=3,
    mistakes={
        "Ask where the species differ": attributes[seen]
        .var(0)
        .topk(40, largest=False)
        .indices.tolist(),
        "How much does each column vary": list(range(40)),
        "at most 40 different": list(range(41)),
        "Give a list of column numbers": "bill",
    },
)


# %% 9.6
def _raw_centre(heat):
    x, y = ((torch.arange(n) + 0.5) / n for n in (heat.shape[1], heat.shape[0]))
    return torch.stack([(heat.sum(0) * x).sum(), (heat.sum(1) * y).sum()]) / heat.sum()


def centre_(heat, share=1.5):
    return _raw_centre((heat - share * heat.mean()).clamp_min(0))


H_ = torch.tensor(
    [[0.0, 1, 1, 0, 6], [0, 2, 0, 0, 9], [1, 0, 0, 1, 4], [0, 0, 1, 0, 0]]
)
check_9_6 = Exercise(
    number="9.6",
    title="Where to look closer",
    reference=centre_,
    level=2,
    inputs=[(H_,), (H_.T.contiguous(),), (H_.roll(2, 1) + 1,)],
    mistakes={
        "x and y are mixed up: x counts columns, the second index.": lambda h: centre_(
            h
        ).flip(0),
        "The background pulls the centre to the middle. Take away 1.5 times the mean first.": lambda h: (
            centre_(h, 0.0)
        ),
        "What is below 0 after the subtraction must not count.": lambda h: _raw_centre(
            h - 1.5 * h.mean()
        ),
        "That is the place of the largest value, not the centre of what stands out.": lambda h: (
            torch.tensor(
                [
                    int(h.argmax()) % h.shape[1] + 0.5,
                    int(h.argmax()) // h.shape[1] + 0.5,
                ]
            )
            / torch.tensor([h.shape[1], h.shape[0]])
        ),
    },
)
