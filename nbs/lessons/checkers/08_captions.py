"""Checkers of lesson 8 Captions instead of attributes. Each block runs among the names of the lesson (see `niwt_nb.course.copies.checkers`)."""

from niwt_nb.course.exercises import Exercise


# %% 8.1
def idf_(texts, word):
    d = sum(word in t.split() for t in texts)
    return math.log((1 + len(texts)) / (1 + d)) + 1


texts_ = ["red wings red tail", "blue wings", "redder crown"]
check_8_1 = Exercise(
    number="8.1",
    title="How rare is a word?",
    reference=idf_,
    inputs=[
        (texts_, "red"),
        (texts_, "wings"),
        (texts_, "bill"),
        (["a a a", "a"], "a"),
    ],
    mistakes={
        "You count occurrences. d is the number of texts that have the word, however often.": lambda t, w: (
            math.log((1 + len(t)) / (1 + sum(x.split().count(w) for x in t))) + 1
        ),
        "You find the word inside other words (`red` in `redder`). Split the text first.": lambda t, w: (
            math.log((1 + len(t)) / (1 + sum(w in x for x in t))) + 1
        ),
        "The + 1 at the end is missing: without it, a word of every text would vanish.": lambda t, w: (
            idf_(t, w) - 1
        ),
        "Upside down: a rare word should get a large number.": lambda t, w: (
            math.log((1 + sum(w in x.split() for x in t)) / (1 + len(t))) + 1
        ),
    },
)


# %% 8.2
def row_(count, idf):
    tf = torch.where(count > 0, 1 + count.clamp_min(1).log(), 0.0)
    return tf * idf / (tf * idf).norm()


check_8_2 = Exercise(
    number="8.2",
    title="From counts to a row",
    reference=row_,
    level=2,
    inputs=[
        (torch.tensor([3.0, 0, 1]), torch.tensor([1.0, 2, 1.5])),
        (torch.tensor([0.0, 5, 2, 2]), torch.tensor([1.0, 1.2, 2, 1])),
    ],
    mistakes={
        "The row should have length 1: divide by its `.norm()`.": lambda c, i: (
            torch.where(c > 0, 1 + c.clamp_min(1).log(), 0.0) * i
        ),
        "You use the counts as they are. Dampen them: 1 + ln(count) where the word occurs.": lambda c, i: (
            c * i / (c * i).norm()
        ),
        "ln(0) is minus infinity. Words that do not occur get 0: `torch.where(count > 0, ..., 0)`.": lambda c, i: (
            (1 + c.log()) * i / ((1 + c.log()) * i).norm()
        ),
        "You divide by the sum. Length 1 means that the squares sum to 1: `.norm()`.": lambda c, i: (
            torch.where(c > 0, 1 + c.clamp_min(1).log(), 0.0)
            * i
            / (torch.where(c > 0, 1 + c.clamp_min(1).log(), 0.0) * i).sum()
        ),
    },
)


# %% 8.3
def missed_(seen_texts, new_texts):
    known = set(" ".join(seen_texts).split())
    words = " ".join(new_texts).split()
    return sum(w not in known for w in words) / len(words)


def distinct_(s, n):
    known, words = set(" ".join(s).split()), set(" ".join(n).split())
    return len(words - known) / len(words)


check_8_3 = Exercise(
    number="8.3",
    title="What will the vocabulary miss?",
    reference=missed_,
    level=2,
    inputs=[
        (["red wings", "blue tail"], ["azure wings azure tail", "red crown"]),
        (["a b"], ["a a a c"]),
        (["redder"], ["red red redder"]),
    ],
    mistakes={
        "You count each word once. A word that is written twice counts twice.": distinct_,
        "That is the share of known words.": lambda s, n: 1 - missed_(s, n),
        "You look for the word inside the joined text, so `red` is found in `redder`. Split first.": lambda s, n: (
            sum(w not in " ".join(s) for w in " ".join(n).split())
            / len(" ".join(n).split())
        ),
    },
)


# %% 8.4
def fill_(table, seen):
    return torch.where(table.isnan(), table[seen].mean(0).expand_as(table), table)


N_ = float("nan")
F_, f_ = (
    torch.tensor([[1.0, 0, 2], [3, 1, 4], [N_, 5, 30], [7, N_, N_]]),
    torch.tensor([0, 1]),
)
check_8_4 = Exercise(
    number="8.4",
    title="Fill the gaps",
    reference=fill_,
    level=2,
    inputs=[(F_, f_), (F_[[3, 0, 1, 2]], torch.tensor([1, 2]))],
    mistakes={
        "You fill in zeros. A zero says that the species has it not; it does not say that nobody knows.": lambda t, s: (
            t.nan_to_num(0.0)
        ),
        "You take the mean over all rows that are known, unseen ones as well. Only the seen rows may be "
        "used.": lambda t, s: torch.where(t.isnan(), t.nanmean(0).expand_as(t), t),
        "You take one mean for the whole table. Each column has its own.": lambda t, s: (
            torch.where(t.isnan(), t[s].mean(), t)
        ),
        "You take the mean of the row. What is missing belongs to a column.": lambda t, s: (
            torch.where(t.isnan(), t.nanmean(1, keepdim=True).expand_as(t), t)
        ),
    },
)


# %% 8.5
def judge_entry(text):
    "What is wrong with a student's entry; empty if the bird is recognised from it."
    if not isinstance(text, str):
        return "Give a text."
    words_ = re.findall(r"[a-z]+", text.lower())
    if len(words_) < 15:
        return f"That is {len(words_)} words; the bird has ten facts to tell, so write at least 15."
    mine = entries(20)
    mine[species] = text
    table = count_words(mine)
    weight, bias, _ = write(table)
    own = test_features[data.labels[test] == species]
    with torch.no_grad():
        share = float(((own @ weight.T + bias).argmax(1) == 4).float().mean())
    if share >= 0.8:
        return ""
    vocabulary_ = {
        w for c in data.seen.tolist() for w in re.findall(r"[a-z]+", mine[c].lower())
    }
    strange = sorted({w for w in words_ if w not in vocabulary_ and w not in LITTLE})
    return (
        f"{share:.0%} of the pictures were named correctly. "
        + (
            f"The vocabulary does not know: {', '.join(strange[:8])}. "
            if strange
            else ""
        )
        + "Say the colour directly before the part (pairs of words count), and say it for wings, "
        "belly, crown, bill, legs; then pattern and shape."
    )


check_8_5 = Exercise(
    number="8.5",
    title="Write an entry",
    reference=" ".join(describe(looks[species], 8, 3)),
    judge=judge_entry,
    level=3,
    mistakes={
        "write at least 15": "a nice bird",
        "of the pictures were named correctly": "a sleek avian of middling stature perched upon some "
        "timber gazing wistfully at the far horizon in gentle light",
        "Give a text": 7,
    },
)
