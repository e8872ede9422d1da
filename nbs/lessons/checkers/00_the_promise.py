"""Checkers of lesson 0 The promise. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise

# %% 0.1
check_0_1 = Exercise(
    number="0.1",
    title="Count the rows",
    reference=60,
    mistakes={
        "Those are the new ones only. The old rows stay.": 10,
        "That is the number before anything was added.": 50,
        "That is with one species added. All ten are added here.": 51,
        "That is the number of weights in a row, not the number of rows.": 128,
    },
)


# %% 0.2
check_0_2 = Exercise(
    number="0.2",
    title="Share of right names",
    reference=lambda predicted, truth: float((predicted == truth).float().mean()),
    inputs=[
        (torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])),
        (torch.tensor([3, 3]), torch.tensor([0, 1])),
        (torch.tensor([5]), torch.tensor([5])),
    ],
    mistakes={
        "That is the number of right names. Divide by the number of pictures.": lambda p, t: (
            float((p == t).sum())
        ),
        "That is in percent. A share lies between 0 and 1.": lambda p, t: (
            100 * float((p == t).float().mean())
        ),
        "That is the share of wrong names.": lambda p, t: float(
            (p != t).float().mean()
        ),
    },
)


# %% 0.3
other_look = data.images.species[int(data.seen[0])].look
check_0_3 = Exercise(
    number="0.3",
    title="From a look to numbers",
    reference=lambda look: species_attributes(look),
    level=2,
    inputs=[(look,), (other_look,)],
    mistakes={
        "You give a 1 to every group that the bird has. Compare the value as well.": lambda look: (
            torch.tensor([float(n[4:].split("::")[0] in look) for n in ATTRIBUTE_NAMES])
        ),
        "You compare the value but not the group: a bird with a blue crown does not have a blue wing.": lambda look: (
            torch.tensor(
                [float(n.split("::")[1] in look.values()) for n in ATTRIBUTE_NAMES]
            )
        ),
        "Those are places, not a tensor of 39 numbers.": lambda look: torch.tensor(
            [
                i
                for i, n in enumerate(ATTRIBUTE_NAMES)
                if look[n[4:].split("::")[0]] == n.split("::")[1]
            ]
        ),
    },
)


# %% 0.4
check_0_4 = Exercise(
    number="0.4",
    title="A control of your own",
    reference=0.1,  # near it: the ten scores are equal but for rounding, and that chooses
    level=2,
    atol=0.04,
    mistakes={
        "That is in percent. A share lies between 0 and 1.": 10.0,
        "That is the accuracy with the right descriptions.": accuracy_with(right),
        "That is the accuracy with another's description.": accuracy_with(swapped),
    },
)


# %% 0.5
def judge_bird(invented):
    "What is wrong with an invented species; empty if it is recognised."
    if not isinstance(invented, dict):
        return f"A look is a dictionary from group to value, as `look` above; this is a {type(invented).__name__}."
    if set(invented) != set(ATTRIBUTES):
        return f"These groups are missing or unknown: {', '.join(sorted(set(invented) ^ set(ATTRIBUTES)))}."
    if wrong := [f"{g}: {v}" for g, v in invented.items() if v not in ATTRIBUTES[g]]:
        return f"No such value: {', '.join(wrong)}. The values are in ATTRIBUTES."
    near, n = min(
        (
            (s.name, sum(s.look[g] != v for g, v in invented.items()))
            for s in data.images.species
        ),
        key=lambda pair: pair[1],
    )
    if n < 4:
        return f"It differs from the {near} in {n} groups only; make it four."
    birds = torch.stack(
        [backbone.preprocess(b) for b in draw_species(invented, n=10, seed=3)[0]]
    )
    w, b = write(species_attributes(invented)[None])
    with torch.no_grad():
        named = int(
            (extend(network.head, w, b)(network.features(birds)).argmax(1) == 50).sum()
        )
    return (
        ""
        if named >= 8
        else f"{named} of 10 were named correctly. Which words would set it further apart from what the network knows? Section 5 says which it sees best."
    )


invented_right = dict(
    zip(
        ATTRIBUTES,
        (
            "red",
            "blue",
            "white",
            "black",
            "spatulate",
            "fan-shaped",
            "striped",
            "spotted",
            "masked",
            "orange",
        ),
    )
)
check_0_5 = Exercise(
    number="0.5",
    title="Invent a bird",
    reference=invented_right,
    judge=judge_bird,
    level=3,
    mistakes={
        "differs from the Golden-capped Daggerbill in 0 groups only": look,
        "These groups are missing": {"wing_color": "red"},
        "A look is a dictionary": "a red bird",
    },
)
