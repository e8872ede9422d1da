"""Checkers of lesson 10 Capstone: design a species, defend its classifier. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise


# %% 10.1
def judge_look(look):
    "What is wrong with an invented look; empty if it is new enough."
    if not isinstance(look, dict):
        return "A look is a dictionary from group to value, such as `example`."
    if set(look) != set(ATTRIBUTES):
        return f"These groups are missing or unknown: {', '.join(sorted(set(look) ^ set(ATTRIBUTES)))}."
    if wrong := [f"{g}: {v}" for g, v in look.items() if v not in ATTRIBUTES[g]]:
        return f"No such value: {', '.join(wrong)}. The values are in ATTRIBUTES."
    if look == example:
        return "That is our bird. Invent your own."
    s = min(data.images.species, key=lambda s: len(differences(look, s)))
    return (
        ""
        if len(differences(look, s)) >= 4
        else f"It differs from the {s.name} only in {', '.join(differences(look, s))}. Change another group."
    )


new_ = dict(
    zip(
        ATTRIBUTES,
        (
            "red",
            "yellow",
            "black",
            "black",
            "dagger",
            "fan-shaped",
            "striped",
            "solid",
            "masked",
            "blue",
        ),
    )
)
check_10_1 = Exercise(
    number="10.1",
    title="Your species",
    reference=new_,
    judge=judge_look,
    level=1,
    mistakes={
        "differs from the": dict(data.images.species[0].look),
        "missing or unknown": {"wing_color": "red"},
        "No such value": {**new_, "leg_color": "pink"},
        "That is our bird": example,
        "A look is a dictionary": "a blue bird",
    },
)


# %% 10.2
def stolen_(before, after, truth, new):
    return float(((before == truth) & (after == new)).float().mean())


B_, A_, T_ = (
    torch.tensor([0, 1, 2, 3, 1]),
    torch.tensor([0, 9, 9, 3, 2]),
    torch.tensor([0, 1, 0, 3, 1]),
)
check_10_2 = Exercise(
    number="10.2",
    title="Stolen",
    reference=stolen_,
    level=2,
    inputs=[
        (B_, A_, T_, 9),
        (B_, torch.tensor([9, 9, 9, 9, 9]), T_, 9),
        (B_, B_, T_, 9),
    ],
    mistakes={
        "You count every picture that got the new name, also those that were wrong before. Nobody stole "
        "these.": lambda b, a, t, n: float((a == n).float().mean()),
        "You count every change. Only changes to the new row are its doing.": lambda b, a, t, n: (
            float(((b == t) & (a != b)).float().mean())
        ),
        "You divide by the pictures that were right before. The share is one of all pictures.": lambda b, a, t, n: (
            float(((b == t) & (a == n)).float().sum() / (b == t).float().sum())
        ),
        "That is a number of pictures. A share is between 0 and 1.": lambda b, a, t, n: (
            float(((b == t) & (a == n)).float().sum())
        ),
    },
)


# %% 10.3
check_10_3 = Exercise(
    number="10.3",
    title="The word that it could do without",
    reference=lambda f: min(f, key=lambda g: abs(f[g])),
    level=2,
    inputs=[
        ({"wing": -2.0, "bill": -0.1, "tail": -0.5, "legs": 0.4},),
        ({"a": 1.3, "b": -1.0, "c": 0.2},),
        (falls,),
    ],
    mistakes={
        "The most negative change is the word that matters most.": lambda f: min(
            f, key=f.get
        ),
        "You took the largest number. A wrong word that raises the score matters too: look at the size of"
        " the change.": lambda f: max(f, key=f.get),
        "That is the one that matters most.": lambda f: max(f, key=lambda g: abs(f[g])),
    },
)


# %% 10.4
check_10_4 = Exercise(
    number="10.4",
    title="Is one control enough?",
    reference=lambda c: (max(c), sum(v > 0.1 for v in c)),
    level=2,
    inputs=[([0.0, 0.2, 0.1, 0.35],), ([0.0, 0.0],), ([0.5],)],
    mistakes={
        "You report the mean. One control that does well is enough to doubt the claim: report the largest.": lambda c: (
            sum(c) / len(c),
            sum(v > 0.1 for v in c),
        ),
        "The smallest share is the best for you. The critic wants the worst, the largest.": lambda c: (
            min(c),
            sum(v > 0.1 for v in c),
        ),
        "More than a tenth: 0.1 itself does not count.": lambda c: (
            max(c),
            sum(v >= 0.1 for v in c),
        ),
        "The second number is how many, not which share.": lambda c: (
            max(c),
            sum(v > 0.1 for v in c) / len(c),
        ),
    },
)


# %% 10.5
measured_ = {}


def measure_(look):
    "All the evidence for a look, as the page measured it; once for each look."
    key = tuple(sorted(look.items()))
    if key not in measured_:
        measured_[key] = measure_now_(look)
    return measured_[key]


def measure_now_(look):
    drawn, _ = draw_species(look, n=20, seed=7)
    seen_as, full = see(drawn), add(look)
    with torch.no_grad():
        got, then = full(seen_as).argmax(1), full(other_features).argmax(1)
    lots = [won(random_look(s), seen_as) for s in range(5)]
    joined = join_guide(look, "New")
    maker = fit_explainer(
        network, joined, prepare, head=full, columns=order, per_class=5
    )
    said, change = (
        explain_batch(maker, torch.stack([prepare(p) for p in drawn]), target=60),
        wrong_words(look, seen_as),
    )
    return {
        "look": look,
        "differs": min(len(differences(look, s)) for s in data.images.species),
        "recognised": float((got == 60).float().mean()),
        "stolen": float(((before == other_rows) & (then == 60)).float().mean()),
        "control": max(lots),
        "ratio": float(said.drop.mean() / said.random_drop.mean()),
        "weakest": min(change, key=lambda g: abs(change[g])),
        "weak": [
            g
            for g in change
            if abs(change[g]) <= 0.01 + 1.02 * min(map(abs, change.values()))
        ],
        "overlooked": still_named(look),
    }


def judge_defence(claimed):
    "What is wrong with a defence; empty if its numbers are right and good enough."
    if not isinstance(claimed, dict) or not {
        "look",
        "recognised",
        "stolen",
        "control",
        "ratio",
        "weakest",
        "overlooked",
    } <= set(claimed):
        return "Give a dictionary with look, recognised, stolen, control, ratio, weakest and overlooked."
    if hint := judge_look(claimed["look"]):
        return hint
    true = measure_(claimed["look"])
    for key in ("recognised", "stolen", "control", "ratio"):
        if not abs(float(claimed[key]) - true[key]) <= 0.02 + 0.1 * abs(true[key]):
            return (
                f"`{key}` is {float(claimed[key]):.3f} in your report; measured again it is "
                f"{'higher' if true[key] > float(claimed[key]) else 'lower'}. Was it measured with other birds, or another classifier?"
            )
    if claimed["weakest"] not in true["weak"]:
        return (
            f"The word that matters least is not {claimed['weakest']} (exercise 10.3)."
        )
    got = points(true | {"overlooked": claimed["overlooked"]})
    return (
        ""
        if sum(got.values()) >= 9
        else f"The numbers are right, and the rubric gives {sum(got.values())} of 12: {got}. "
        "Which part of the design would you change?"
    )


check_10_5 = Exercise(
    number="10.5",
    title="The defence",
    reference=lambda: measure_(new_),
    judge=judge_defence,
    level=3,
    mistakes={
        "Give a dictionary with": {"look": new_},
        "measured again it is higher": lambda: {**measure_(new_), "recognised": 0.2},
        "The word that matters least": lambda: {**measure_(new_), "weakest": "tail"},
        "That is our bird": lambda: {**measure_(new_), "look": example},
    },
)
