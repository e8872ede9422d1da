"""Checkers of lesson 2 Importance. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise

# %% 2.1
check_2_1 = Exercise(
    number="2.1",
    title="One number a neuron",
    reference=lambda gradient: gradient.mean((2, 3)),
    inputs=[(gradient,), (torch.arange(24.0).reshape(2, 3, 2, 2),)],
    mistakes={
        "That is the sum over the places. Importance is the mean.": lambda gradient: (
            gradient.sum((2, 3))
        ),
        "That is the mean over pictures and neurons. Average over the places, the last two axes.": lambda gradient: (
            gradient.mean((0, 1))
        ),
        "That is the largest value. Importance is the mean.": lambda gradient: (
            gradient.amax((2, 3))
        ),
        "You cut off what is negative before the mean. A place that speaks against counts as well.": lambda gradient: (
            gradient.clamp_min(0).mean((2, 3))
        ),
        "You average sizes. The sign says whether the neuron speaks for or against: keep it.": lambda gradient: (
            gradient.abs().mean((2, 3)) + 0 * gradient.sum()
        ),
    },
)


# %% 2.2
rule = lambda p, V, u, n: (u * (V @ p > 0).float()) @ V / n
check_2_2 = Exercise(
    number="2.2",
    title="The small network, by hand",
    reference=rule,
    inputs=[
        (p, V, u, 4),
        (
            torch.tensor([1.0, 2, 3]),
            torch.tensor([[1.0, -1, 1], [-1, 0, 0], [0, 2, -1]]),
            torch.tensor([2.0, 5, -1]),
            9,
        ),
    ],
    level=2,
    mistakes={
        "You let hidden units pass that ReLU has switched off.": lambda p, V, u, n: (
            u @ V / n
        ),
        "You forgot that the means are over n places: one place counts for 1 / n.": lambda p, V, u, n: (
            n * rule(p, V, u, n)
        ),
        "You multiply by the hidden units. The slope of ReLU is 1 where it is on, whatever its value.": lambda p, V, u, n: (
            (u * (V @ p).clamp_min(0)) @ V / n
        ),
    },
)


# %% 2.3
def with_autograd(A, f, c, what=lambda s, c: s[0, c]):
    a = A.clone().requires_grad_()
    return torch.autograd.grad(what(f(a), c), a)[0].mean((2, 3))[0]


rest = lambda a: network.head(network.tail(a))
mixing = torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 0.0]])
tiny_rest = lambda a: a.pow(2).mean((2, 3)) @ mixing.T
check_2_3 = Exercise(
    number="2.3",
    title="By autograd",
    reference=with_autograd,
    inputs=[(A, rest, winner), (activation, tiny_rest, 1)],
    level=2,
    mistakes={
        "That is the importance for the sum of all scores. Pick the score of class c.": lambda A, f, c: (
            with_autograd(A, f, c, lambda s, c: s.sum())
        ),
        "That is for the probability. Use the score, before any softmax.": lambda A, f, c: (
            with_autograd(A, f, c, lambda s, c: s.softmax(1)[0, c])
        ),
        "That is the sum over the places, not the mean.": lambda A, f, c: (
            with_autograd(A, f, c) * A[0, 0].numel()
        ),
    },
)


# %% 2.4
check_2_4 = Exercise(
    number="2.4",
    title="What each neuron adds",
    reference=lambda g, A: (g * A).sum((1, 2)),
    inputs=[(gradient[0], A[0]), (torch.arange(8.0).reshape(2, 2, 2), activation[0])],
    level=2,
    mistakes={
        "You average the two first and multiply then. A neuron adds place by place: multiply first.": lambda g, A: (
            g.mean((1, 2)) * A.mean((1, 2))
        ),
        "That is the mean over the places. What all places add is the sum.": lambda g, A: (
            (g * A).mean((1, 2))
        ),
        "Those are summed gradients. Multiply by the activation: a silent neuron adds nothing.": lambda g, A: (
            g.sum((1, 2))
        ),
    },
)


# %% 2.5
def turned_both_ways(A, f, c, k, step, up=1, down=1, divide=True):
    d = torch.zeros_like(A)
    d[:, k] = step
    n = A[0, 0].numel()
    return float(
        (f(A + up * d)[0, c] - f(A - down * d)[0, c]).detach()
        / (step * 2 * (n if divide else 1))
    )


exact_rest = lambda a: precise.head(precise.tail(a))
check_2_5 = Exercise(
    number="2.5",
    title="Without calculus",
    reference=turned_both_ways,
    inputs=[
        (base, exact_rest, winner, 44, 1e-5),
        (
            activation.double(),
            lambda a: a.pow(3).mean((2, 3)) @ mixing.T.double(),
            0,
            1,
            0.1,
        ),
    ],
    level=3,
    rtol=1e-3,
    atol=1e-9,
    mistakes={
        "You turned the neuron up at all places: divide by their number as well.": lambda A, f, c, k, step: (
            turned_both_ways(A, f, c, k, step, divide=False)
        ),
        "You went both ways, so divide by two steps.": lambda A, f, c, k, step: (
            2 * turned_both_ways(A, f, c, k, step)
        ),
        "That has the wrong sign: up minus down.": lambda A, f, c, k, step: (
            -turned_both_ways(A, f, c, k, step)
        ),
        "That goes up only. Go down as well and divide by two steps.": lambda A, f, c, k, step: (
            2 * turned_both_ways(A, f, c, k, step, down=0)
        ),
    },
)
