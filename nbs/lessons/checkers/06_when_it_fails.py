"""Checkers of lesson 6 When it fails. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise

# %% 6.1
A_, B_ = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[1.0, 0], [3, 1]])
check_6_1 = Exercise(
    number="6.1",
    title="How different is it?",
    reference=lambda G_new, G: float((G_new - G).norm() / G.norm()),
    inputs=[(A_, B_), (B_, A_), (A_, A_)],
    mistakes={
        "You divide by the length of the new matrix. Relative to G means: divide by G's.": lambda n, g: (
            float((n - g).norm() / n.norm())
        ),
        "That compares the two lengths. Matrices of the same length can still be different: take the length"
        " of the difference.": lambda n, g: float(
            (n.norm() - g.norm()).abs() / g.norm()
        ),
        "That is the length of the difference, but not yet relative to anything.": lambda n, g: (
            float((n - g).norm())
        ),
    },
)


# %% 6.2
W_, p_ = torch.tensor([[2.0, 1], [1, 5]]), torch.tensor([1.0, 1])


def give_back_(weight, prior, length):
    d = weight - prior
    return prior + length * d / d.norm(dim=1, keepdim=True)


check_6_2 = Exercise(
    number="6.2",
    title="Give the length back",
    reference=give_back_,
    level=2,
    inputs=[
        (W_, p_, 2.0),
        (torch.tensor([[0.0, 3], [3, 0], [1, 1]]), torch.zeros(2), 1.5),
    ],
    mistakes={
        "You scale the row itself. What was pulled is its distance from `prior`: take `prior` off first and"
        " add it again at the end.": lambda w, p, n: (
            n * w / w.norm(dim=1, keepdim=True)
        ),
        "`prior` is missing at the end: you return the differences.": lambda w, p, n: (
            n * (w - p) / (w - p).norm(dim=1, keepdim=True)
        ),
        "You divide by the length of the whole matrix. Each row has its own: `.norm(dim=1, keepdim=True)`.": lambda w, p, n: (
            p + n * (w - p) / (w - p).norm()
        ),
        "You multiply each difference by `length`, but it has a length of its own already: divide by it.": lambda w, p, n: (
            p + n * (w - p)
        ),
    },
)


# %% 6.3
def twins_(k):
    n = k.shape[1]
    return [
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if bool((k[:, i] == k[:, j]).all())
    ]


def other_twins_(k, axis=1, start=1, test="all"):
    rows = k.T if axis == 1 else k
    agree = {"all": torch.all, "any": torch.any}[test]
    return [
        (i, j)
        for i in range(len(rows))
        for j in range(i + start if start >= 0 else 0, len(rows))
        if bool(agree(rows[i] == rows[j]))
    ]


T_ = torch.tensor(
    [[1.0, 0, 1, 0, 1], [0, 1, 0, 0, 0], [1, 0, 1, 1, 1], [0, 1, 0, 0, 0]]
)
check_6_3 = Exercise(
    number="6.3",
    title="Find the twins",
    reference=twins_,
    level=2,
    inputs=[(T_,), (binary[in_step],), (torch.eye(3),)],
    mistakes={
        "Those are species that look the same. Attributes are the columns: knowledge[:, i].": lambda k: (
            other_twins_(k, axis=0)
        ),
        "Every attribute is its own twin in your list. Let j start above i.": lambda k: (
            other_twins_(k, start=0)
        ),
        "You list each pair twice. Let j start above i.": lambda k: [
            (i, j) for i, j in other_twins_(k, start=-1) if i != j
        ],
        "You call two columns twins when they agree anywhere. They must agree for all classes.": lambda k: (
            other_twins_(k, test="any")
        ),
    },
)


# %% 6.4
def pulled_(bare, cued, cue_classes):
    return float(
        ((bare != cued) & torch.isin(cued, torch.tensor(cue_classes))).float().mean()
    )


check_6_4 = Exercise(
    number="6.4",
    title="How much does the cue decide?",
    reference=pulled_,
    level=2,
    inputs=[
        (torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 0, 0, 3, 2]), [0, 1]),
        (torch.tensor([0, 1, 3, 5]), torch.tensor([1, 1, 1, 4]), [1]),
        (torch.tensor([2, 2]), torch.tensor([2, 2]), [2]),
    ],
    mistakes={
        "You count every change. Only changes to one of `cue_classes` are the cue's doing.": lambda b, c, k: (
            float((b != c).float().mean())
        ),
        "You count every bird that has such a name with the cue, also those that had the very same name "
        "without it.": lambda b, c, k: float(
            torch.isin(c, torch.tensor(k)).float().mean()
        ),
        "That is a number of birds. A share is between 0 and 1.": lambda b, c, k: float(
            ((b != c) & torch.isin(c, torch.tensor(k))).float().sum()
        ),
        "You look for changes from one of `cue_classes`. It should be changes to one.": lambda b, c, k: (
            float(((b != c) & torch.isin(b, torch.tensor(k))).float().mean())
        ),
    },
)


# %% 6.5
right_ = {"A": "lambda", "B": "words", "C": "seen bias", "D": "layer"}
check_6_5 = Exercise(
    number="6.5",
    title="The doctor",
    reference=right_,
    level=3,
    mistakes={
        "A and C both have a good T1 and a poor U. The length tells them apart: whose rows whisper?": {
            **right_,
            "A": "seen bias",
            "C": "lambda",
        },
        "B and D both have a poor T1. Which one is at chance or below, as if the names were swapped, and which has "
        "merely weak neurons?": {
            **right_,
            "B": "layer",
            "D": "words",
        },
        "A has a fine T1, so its words are right. And B cannot be a matter of length: its rows are as long "
        "as the seen ones.": {
            **right_,
            "A": "words",
            "B": "lambda",
        },
    },
)
