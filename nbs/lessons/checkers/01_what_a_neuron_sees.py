"""Checkers of lesson 1 What a neuron sees. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise

# %% 1.1
check_1_1 = Exercise(
    number="1.1",
    title="Where is the peak?",
    reference=lambda m: (int(m.argmax()) // m.shape[1], int(m.argmax()) % m.shape[1]),
    inputs=[
        (torch.tensor([[0.0, 1, 2], [0, 5, 1]]),),
        (torch.tensor([[1.0, 9], [2, 3], [0, 0], [4, 1]]),),
        (A[44],),
    ],
    mistakes={
        "That is column and row. The row comes first.": lambda m: (
            int(m.argmax()) % m.shape[1],
            int(m.argmax()) // m.shape[1],
        ),
        "You divide by the height. A row is as long as the map is wide.": lambda m: (
            int(m.argmax()) // m.shape[0],
            int(m.argmax()) % m.shape[0],
        ),
        "That is one number, counted through all rows. Make row and column of it.": lambda m: (
            int(m.argmax())
        ),
    },
)


# %% 1.2
check_1_2 = Exercise(
    number="1.2",
    title="The pictures that excite it",
    reference=lambda peak, k, n: peak[:, k].topk(n).indices,
    inputs=[(peak[:40], 44, 3), (peak[40:90], 8, 5)],
    mistakes={
        "Those are the peaks. The question is which pictures they belong to.": lambda peak, k, n: (
            peak[:, k].topk(n).values
        ),
        "Those are neurons: you took a row. The pictures are the first axis.": lambda peak, k, n: (
            peak[min(k, len(peak) - 1)].topk(n).indices
        ),
        "Those are the pictures that excite it least.": lambda peak, k, n: (
            peak[:, k].topk(n, largest=False).indices
        ),
    },
)


# %% 1.3
inside_44 = avg_pool2d(wing[None, None].float(), 4)[0, 0] > 0.5
check_1_3 = Exercise(
    number="1.3",
    title="Share inside a part",
    reference=lambda m, mask: float(m[mask].sum() / m.sum()) if m.sum() > 0 else 0.0,
    inputs=[
        (A[44], inside_44),
        (torch.zeros(2, 2), torch.tensor([[True, False], [False, False]])),
        (
            torch.tensor([[1.0, 2], [3, 4]]),
            torch.tensor([[True, False], [False, True]]),
        ),
    ],
    level=2,
    mistakes={
        "For a map of zeros that is 0 / 0. Treat it before you divide.": lambda m, mask: (
            float(m[mask].sum() / m.sum())
        ),
        "That is the sum inside. Divide by the sum over the whole map.": lambda m, mask: (
            float(m[mask].sum())
        ),
        "That is the share of the area, whatever the neuron does.": lambda m, mask: (
            float(mask.float().mean())
        ),
        "That is the share outside.": lambda m, mask: (
            float(m[~mask].sum() / m.sum()) if m.sum() > 0 else 0.0
        ),
    },
)


# %% 1.4
def hide_square(p, r, c, size, fill=None):
    p = p.clone()
    p[:, r : r + size, c : c + size] = (
        p.mean((1, 2))[:, None, None] if fill is None else fill
    )
    return p


check_1_4 = Exercise(
    number="1.4",
    title="Hide a square",
    reference=hide_square,
    inputs=[(x[0], 8, 20, 8), (x[0, :, :20, :30].clone(), 0, 4, 5)],
    level=2,
    mistakes={
        "Your square is filled with zeros. Take the mean of each colour.": lambda p, r, c, size: (
            hide_square(p, r, c, size, 0.0)
        ),
        "Row and column are exchanged: rows are the second axis, columns the third.": lambda p, r, c, size: (
            hide_square(p, c, r, size)
        ),
        "That is one mean for all three colours, a grey. Take one mean a colour.": lambda p, r, c, size: (
            hide_square(p, r, c, size, p.mean())
        ),
    },
)


# %% 1.5
def choosiest(value, seed=0):
    "The neuron that tells one colour best, and its ratio."
    every = {v: answers_of(v, seed) for v in ATTRIBUTES["wing_color"]}
    others = torch.stack([p for v, p in every.items() if v != value]).amax(0)
    ratio = (every[value] + 0.1) / (others + 0.1)
    return int(ratio.argmax()), float(ratio.max())


red = answers_of("red")
check_1_5 = Exercise(
    number="1.5",
    title="Find the neuron of red wings",
    reference=choosiest("red")[0],
    level=3,
    mistakes={
        "That one answers most to red wings, but to others as well. Divide by the highest of the other colours.": int(
            red.argmax()
        ),
        "That is the neuron of green wings.": 44,
        "That is the ratio. Which neuron does it belong to?": choosiest("red")[1],
    },
)
