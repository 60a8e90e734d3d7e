# %% [markdown]
# # 5. A small study
#
# *About 6 hours, most of them for thinking and writing; the runs take minutes. No GPU needed, and
# no network. Chapters to read before: "Replay, taken apart" and "Claims, seeds and honest
# comparison", if your book has them; else the section "Was it this seed?" of "Watch a network
# forget".*
#
# An *ablation* changes **one** thing and leaves all else as it is. You will run one, with several
# seeds, and make one claim that your numbers carry. 5a and 5b are judged by tests, the rest by a
# person, with `rubric.md`: read it before you begin.

# %%
import json
import math
from pathlib import Path

from scipy import stats

from genreplay_core import Config, book, plots, run
from genreplay_core.course import check

# %% [markdown]
# ## 5a. The interval of a paired difference
#
# Two arms, $A$ and $B$, run with the *same* seeds: seed 3 has the same order of the digits and
# the same first weights in both. So subtract seed by seed, $d_s = a_s - b_s$: what both arms owe
# to the luck of a seed drops out. Then
#
# $$ \bar d \pm t_{n-1} \cdot \frac{s_d}{\sqrt n} , $$
#
# with $n$ seeds, $s_d$ the standard deviation of the differences **with $n - 1$** in the
# denominator, and $t_{n-1}$ the 97.5 % point of Student's distribution with $n - 1$ degrees of
# freedom: `stats.t.ppf(0.975, n - 1)`.


# %%
def paired_interval(a, b):
    """(mean, low, high) of a - b with a 95 % interval. a, b: n >= 2 numbers, paired by place."""
    ### BEGIN SOLUTION
    d = [x - y for x, y in zip(a, b, strict=True)]
    n = len(d)
    mean = sum(d) / n
    deviation = math.sqrt(sum((x - mean) ** 2 for x in d) / (n - 1))
    reach = float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return mean, mean - reach, mean + reach
    ### END SOLUTION


# %%
check("5a", globals())

# %% [markdown]
# ## The question and the design (5c)
#
# Choose a question. Some that can be answered on digits in minutes (each is a single field of
# `Config`; `help(Config)` tells of them all):
#
# - Do soft labels keep more than hard ones? (`labels`)
# - Does it matter how much the new task counts: 1/t, or always one half? (`importance`)
# - How many dreams does a new image need? (`replay_ratio`)
# - Is a wider VAE a better memory? (`generator_hidden`)
# - Does it help to begin each task with a fresh optimiser? (`reset_optimisers`)
#
# Write down, **before you run anything**: the question; the two arms, and the one thing in which
# they differ; what you measure; how many seeds, and why so many; what result would make you say
# yes, no, and "can't tell"; and what you expect.
#
# ### BEGIN SOLUTION
# *Question.* Dreams are labelled by the frozen solver. Does it matter whether it says only its
# best guess (hard label) or its whole answer at temperature 4 (soft label)?
#
# *Arms.* `labels="soft"` and `labels="hard"`. All else is the same: digits in five tasks of two,
# class-incremental; VAE; 300 steps a task for solver and generator; one dream for each new row;
# 1/t.
#
# *Measure.* The average accuracy after the last task, on the test images.
#
# *Seeds.* Eight, 0 to 7, fixed beforehand. A seed draws the order of the digits, which moves the
# result by several points in both arms alike; so the differences are paired. With eight pairs,
# the interval's reach is about 0.84 deviations of a difference: enough to see what is worth
# seeing.
#
# *Yes* if the whole interval of soft minus hard lies above 0; *no* if it lies below 0; else I
# can't tell.
#
# *I expect* yes: a soft label says how sure the old solver was, and blurred dreams are often
# unsure.
# ### END SOLUTION

# %% [markdown]
# ## Run it
#
# Fill in your arms: a name and what is changed, which differs between the two in **one** key.
# `ci` in the profile means that a machine only tries whether the notebook runs.

# %%
TRIAL = book.profile() == "ci"
BASE = {"dataset": "digits", "replay": "generative", "hidden": 100, "steps": 20 if TRIAL else 300}
SEEDS = range(2 if TRIAL else 8)  # at least 5, and chosen before you look


# %%
def my_arms():
    """Two names, each with the changes to BASE that make the arm."""
    ### BEGIN SOLUTION
    return {"soft labels": {"labels": "soft"}, "hard labels": {"labels": "hard"}}
    ### END SOLUTION


# %%
arms = {}
for name, changes in my_arms().items():
    config = {**BASE, **changes}
    runs = {seed: run(Config(**config, seed=seed), device="cpu") for seed in SEEDS}
    accuracies = {str(seed): record["average_accuracy"] for seed, record in runs.items()}
    arms[name] = {"config": config, "accuracy": accuracies}
    print(name, " ".join(f"{100 * value:.1f}" for value in accuracies.values()))

# %% [markdown]
# ## 5b. A record that holds together
#
# A claim that can't be checked is an anecdote. Put all that it rests on into one record: the
# question, both arms with their settings and every seed's accuracy, the difference *first arm
# minus second* with its interval, and the claim. A claim "the first is better by more than
# `above`" **holds** if the whole interval lies above that number. The interval comes from the
# function that is passed in.


# %%
def study_record(question, arms, says, above, interval):
    """The record of a study, a dict that JSON can hold:

    question: text. arms: as they are given. difference: a dict with `mean`, `low` and `high` of the
    first arm minus the second, seed by seed. claim: a dict with `says`, `above` and `holds`.

    arms: {name: {"config": {...}, "accuracy": {seed: value}}}, exactly two; the seeds may stand in
    another order in the second. interval: a function like `paired_interval`.

    Raises ValueError if there aren't two arms, or if they don't have the same seeds.
    """
    ### BEGIN SOLUTION
    if len(arms) != 2:
        raise ValueError(f"two arms are compared, got {len(arms)}")
    first, second = (arm["accuracy"] for arm in arms.values())
    if first.keys() != second.keys():
        raise ValueError("both arms need the same seeds")
    mean, low, high = interval([first[s] for s in first], [second[s] for s in first])
    return {
        "question": question,
        "arms": arms,
        "difference": {"mean": mean, "low": low, "high": high},
        "claim": {"says": says, "above": above, "holds": low > above},
    }
    ### END SOLUTION


# %%
def my_claim():
    """The question, what you claim, and the number above which the whole difference lies."""
    ### BEGIN SOLUTION
    question = "Do soft labels keep more than hard ones?"
    return question, "Soft labels of dreams keep more than hard ones.", 0.0
    ### END SOLUTION


question, says, above = my_claim()
found = study_record(question, arms, says, above, paired_interval)
if not TRIAL:
    Path("study.json").write_text(json.dumps(found, indent=1))
print(found["difference"], found["claim"])

# %% [markdown]
# `study.json` is handed in with your notebooks: the tests look at it too. A claim that turned out
# not to hold is no shame: write the one that does, or say that you can't tell (a claim with an
# `above` that the interval clears, such as "no worse than by 5 points", is a claim as well).

# %%
check("5b", globals())

# %% [markdown]
# ## The figure and its reading (5d)
#
# One figure that shows the answer with its uncertainty, and three to six sentences on what it
# shows. A start:

# %%
first, second = (list(arm["accuracy"].values()) for arm in arms.values())
differences = [a - b for a, b in zip(first, second, strict=True)]
mean, low, high = paired_interval(first, second)
print(" ".join(f"{100 * value:+.1f}" for value in differences))
rows = [(" minus ".join(arms), differences, (low, high))]
book.picture(plots.intervals(rows, "points"), "Each seed's difference, their mean and interval")

# %% [markdown]
# ### BEGIN SOLUTION
# The large dot is the mean over eight seeds of soft minus hard, seed by seed; the line is its 95
# % interval, the small dots are the seeds. The dots say more than the line: how many of the eight
# lie on one side of 0, and whether one seed makes the mean. Read both before you believe either.
# The arms themselves vary from seed to seed, since each seed has its own order of digits; pairing
# takes that out.
# ### END SOLUTION

# %% [markdown]
# ## The claim and its limits (5e)
#
# One sentence that claims, with its number and interval. Then: what would have to be true for it
# to be wrong? What did you *not* vary? Where would you expect it to fail? What would you run
# next, if you had a week of a GPU?
#
# ### BEGIN SOLUTION
# *Claim.* With the settings above, soft labels at temperature 4 end higher than hard labels; the
# difference with its interval is in `study.json`, eight seeds, paired.
#
# *How it could be wrong.* The temperature and T squared also change how large the solver's steps
# on dreams are; with Adam that matters less, but a hard-label arm with another weight of the past
# might close the gap. Eight seeds share one data set and one budget.
#
# *Not varied.* Temperature, budget, the size of the generator, the scenario, the data. Test
# images were looked at for both arms, but nothing was chosen by them.
#
# *Where it may fail.* Where dreams are sharp and the old solver is sure of them, a soft label
# says little more than a hard one; with long training a difference may shrink.
#
# *Next.* The same pair at 100, 300, 1,000 and 3,000 steps, on MNIST: a line instead of a point.
# ### END SOLUTION
