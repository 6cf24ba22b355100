"""Validation against test: what chance makes is left unsaid, and what differs is found."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from small_corpora import made_up
from small_methods import FitWordVotes

from llmembed.contract import Examples, Task
from llmembed.evaluation import Leaderboard, evaluate
from llmembed.evaluation.disagreement import find_disagreement
from llmembed.evaluation.domains import both_sides, told_apart_by, told_apart_by_words
from llmembed.evaluation.gaps import LEVEL, gaps_of, proportions_differ
from llmembed.evaluation.shift import Shift, shift_between

TOPIC = Task(name="topic", classes=("sport", "trade", "music", "rain"))
TAGS = Task(name="tags", classes=("O", "B-x", "I-x"), kind="tokens")
SIGNS = Task(name="signs", classes=("a", "b"), kind="multi")


@pytest.fixture(scope="module")
def corpus():
    return made_up(seed=0, train=900, held=300)


@pytest.fixture(scope="module")
def board(corpus) -> Leaderboard:
    return Leaderboard(evaluate(FitWordVotes(share=0.9), corpus, None, seeds=(0, 1)))


def figures(board: Leaderboard, *, valid: float, test: float, n: int = 500, m: int = 1000):
    """The board's fits with these accuracies of ``n`` and ``m`` texts."""

    def of(scores, value, texts):
        return replace(scores, metrics={**scores.metrics, "accuracy": value}, examples=texts)

    return Leaderboard(
        [
            replace(
                each,
                valid={"topic": of(each.valid["topic"], valid, n)},
                test={"topic": of(each.test["topic"], test, m)},
            )
            for each in board.results
        ]
    )


def found(board: Leaderboard, corpus, rivals: int = 1):
    return find_disagreement(board.winner, board.results_of(board.winner), corpus, rivals=rivals)


def paragraphs(said) -> tuple[str, str, str]:
    """By how much, what, and what to do."""
    far, *differs, do = said.lines()
    return far, "\n".join(differs), do


def other_words(examples: Examples) -> Examples:
    """The same labels under texts every other word of which is new."""
    texts = [
        " ".join(f"new{word}" if i % 2 else word for i, word in enumerate(text.split()))
        for text in examples.texts
    ]
    return replace(examples, texts=texts)


# ---- whether figures differ


def test_proportions_differ_as_chi_square_with_the_same_correction():
    from scipy.stats import chi2_contingency

    for right, n, other, m in ((80, 100, 60, 100), (7, 10, 300, 1000), (500, 600, 1600, 2000)):
        table = [[right, n - right], [other, m - other]]
        assert proportions_differ(right / n, n, other / m, m) == pytest.approx(
            chi2_contingency(table, correction=True).pvalue
        )
    assert proportions_differ(1.0, 50, 1.0, 80) == 1.0


@pytest.mark.parametrize(("rows", "tries"), [(1, 1), (1, 8), (5, 1), (5, 8), (40, 1)])
@pytest.mark.parametrize(("n", "m"), [(40, 1000), (500, 500), (2000, 300)])
def test_equal_parts_raise_false_alarms_in_a_twentieth_of_cases_at_most(rows, tries, n, m):
    """``rows`` rivals, each the best on validation of ``tries`` settings, all equally good and
    independent, which real ones are not; the best on validation is judged."""
    rng = np.random.default_rng(rows * 1000 + tries * 100 + n)
    cases = 2000
    valid = rng.binomial(n, 0.8, size=(cases, rows * tries)).max(axis=1) / n
    test = rng.binomial(m, 0.8, size=cases) / m
    alarms = sum(
        proportions_differ(v, n, t, m) * rows <= LEVEL for v, t in zip(valid, test, strict=True)
    )
    assert alarms <= 0.05 * cases


def test_rows_that_could_have_won_and_seeds_count(board):
    one = figures(board, valid=0.8, test=0.75)
    [alone] = gaps_of(one.winner, one.results, rivals=1)
    [of_ten] = gaps_of(one.winner, one.results, rivals=10)
    [of_one_seed] = gaps_of(one.winner, one.results[:1], rivals=1)
    assert alone.p == pytest.approx(proportions_differ(0.8, 500, 0.75, 1000))
    assert of_ten.p == pytest.approx(10 * alone.p)
    assert of_one_seed.p == alone.p  # the same texts


def test_other_metrics_are_judged_by_the_width_of_their_interval(board):
    """An interval of ±.03 on 1,000 test texts: on as many validation texts .06 is
    .06 / (.03 / 1.96 · √2) = 2.77 standard deviations."""
    each = figures(board, valid=0.80, test=0.74, n=1000).results[0]
    of_f1 = {
        name: {"topic": replace(getattr(each, name)["topic"], primary="macro_f1")}
        for name in ("valid", "test")
    }
    for part, value in (("valid", 0.80), ("test", 0.74)):
        scores = of_f1[part]["topic"]
        of_f1[part]["topic"] = replace(scores, metrics={**scores.metrics, "macro_f1": value})
    interval = replace(each.intervals["topic"], low=0.71, high=0.77)
    each = replace(each, **of_f1, intervals={"topic": interval})
    [gap] = gaps_of(Leaderboard([each]).winner, [each], rivals=1)
    z = 0.06 / (0.03 / 1.959964 * math.sqrt(2))
    assert gap.p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-4)
    assert gap.metric == "macro_f1" and gap.beyond_chance


# ---- what differs


def test_two_random_halves_are_alike():
    """Texts of one kind, some of them on both sides and some twice on one."""
    rng = np.random.default_rng(1)
    texts = made_up(seed=3, train=2400).train.texts
    aucs = []
    for seed in range(6):
        order = rng.permutation(len(texts))
        sides = [[texts[i] for i in order[start::2]] for start in (0, 1)]
        sides[0] += sides[0][:300]
        sides[1] += sides[0][:200]
        vectors = {text: rng.standard_normal(20) for text in texts}
        drawn = both_sides(*sides, most=600, seed=seed)
        by_words = told_apart_by_words(*drawn, seed=seed)
        by_vectors = told_apart_by(lambda t, v=vectors: np.array([v[x] for x in t]), *drawn)
        assert by_words.texts == by_vectors.texts == 600
        aucs += [by_words, by_vectors]
        assert not by_words.beyond_chance and not by_vectors.beyond_chance
    assert all(abs(each.auc - 0.5) < 3 * each.error for each in aucs)
    assert np.mean([each.auc for each in aucs]) == pytest.approx(0.5, abs=0.015)
    assert aucs[0].error == pytest.approx(math.sqrt(401 / 12) / 200)  # 200 of each side in a fold


def test_a_known_distance_of_embeddings_gives_its_auc():
    """Normal clouds whose middles lie d apart: the best AUC is Φ(d / √2)."""
    from statistics import NormalDist

    rng = np.random.default_rng(2)
    one, other = [f"a{i}" for i in range(2000)], [f"b{i}" for i in range(2000)]

    def embed(texts):
        rows = rng.standard_normal((len(texts), 5))
        rows[:, 0] += [1.5 * text.startswith("b") for text in texts]
        return rows

    wanted = NormalDist().cdf(1.5 / math.sqrt(2))
    assert told_apart_by(embed, one, other).auc == pytest.approx(wanted, abs=0.02)


def test_wide_embeddings_are_told_apart_and_no_noise_is():
    rng = np.random.default_rng(4)
    one, other = [f"a{i}" for i in range(400)], [f"b{i}" for i in range(400)]
    moved = rng.standard_normal(1000)

    def embed(texts, by=0.3):
        rows = rng.standard_normal((len(texts), 1000))
        return rows + by * np.outer([text.startswith("b") for text in texts], moved)

    assert told_apart_by(embed, one, other).auc > 0.99
    assert not told_apart_by(lambda texts: embed(texts, 0.0), one, other).beyond_chance


def test_scripts_without_spaces_are_read_by_their_signs():
    rng = np.random.default_rng(5)
    signs = [chr(0x4E00 + i) for i in range(200)]
    one, other = (
        ["".join(rng.choice(signs[start : start + 120], 12)) for _ in range(300)]
        for start in (0, 80)
    )
    assert told_apart_by_words(one, other).auc > 0.9


def test_class_shares_of_one_class_a_text(corpus):
    labels = np.repeat([0, 1, 2, 3], [100, 50, 25, 25])
    texts = [str(i) for i in range(200)]
    train = Examples(texts=texts, labels={"topic": labels})
    moved = Examples(texts=texts, labels={"topic": np.repeat([0, 1, 2, 3], [50, 50, 75, 25])})
    [shares] = shift_between([TOPIC], train, train, moved).classes
    assert shares.distance == pytest.approx(0.25)
    assert [(each.name, each.train, each.test) for each in shares.moved] == [
        ("sport", 0.5, 0.25),
        ("music", 0.125, 0.375),
    ]
    from scipy.stats import chi2_contingency

    table = np.array([[200, 100, 50, 50], [50, 50, 75, 25]])
    assert shares.p == pytest.approx(chi2_contingency(table).pvalue)
    [same] = shift_between([TOPIC], train, train, train).classes
    assert same.p == 1.0 and same.distance == 0 and same.moved == ()


def test_labels_and_tags_count_once_a_text():
    texts = [str(i) for i in range(100)]

    def of(share: int) -> Examples:
        signs = np.zeros((100, 2), dtype=bool)
        signs[:share, 0] = True
        tags = np.tile([0, 0, 0], (100, 1))
        tags[:share, 1:] = [1, 2]
        words = [("one", "two", "three")] * 100
        return Examples(texts=texts, labels={"signs": signs, "tags": tags.ravel()}, words=words)

    signs, tags = shift_between([SIGNS, TAGS], of(20), of(20), of(60)).classes
    assert signs.distance == tags.distance == pytest.approx(0.4)
    assert signs.p == pytest.approx(2 * proportions_differ(0.2, 200, 0.6, 100))
    assert [each.name for each in tags.moved] == ["B-x", "I-x"]


def test_class_shares_drawn_alike_are_seldom_said_to_differ():
    rng = np.random.default_rng(6)
    many = Task(name="topic", classes=tuple(f"c{i}" for i in range(60)))
    habits = rng.dirichlet(np.full(60, 0.3))

    def of(n: int) -> Examples:
        return Examples(texts=["x"] * n, labels={"topic": rng.choice(60, size=n, p=habits)})

    said = [shift_between([many], of(400), of(40), of(150)).classes[0] for _ in range(200)]
    assert sum(each.p <= 0.05 for each in said) <= 20
    assert sum(each.p <= LEVEL for each in said) <= 6


def test_words_never_seen_are_counted():
    train = Examples(texts=["the cat sat"] * 50, labels={})
    valid = Examples(texts=["the dog sat"] * 30 + ["the cat sat"] * 30, labels={})
    test = Examples(texts=["The CAT ran away"] * 30 + ["a b c d"] * 30, labels={})
    unseen = shift_between([], train, valid, test).unseen
    assert unseen.valid == pytest.approx(30 / 180)
    assert unseen.test == pytest.approx((60 + 120) / 240)
    assert unseen.beyond_chance
    same = shift_between([], train, valid, valid).unseen
    assert same.p == 1.0 and not same.beyond_chance


def test_texts_of_training_are_known_and_few_texts_say_nothing():
    train = Examples(texts=[f"text {i}" for i in range(100)], labels={})
    test = Examples(texts=[f"text {i}" for i in range(90, 110)], labels={})
    shift = shift_between([], train, test.select(range(10, 20)), test)
    assert (shift.known_valid, shift.known_test) == (0.0, 0.5)
    assert shift.words is None and shift.embeddings is None and shift.unseen is None


def test_what_is_drawn_is_bounded():
    asked = []

    def embed(texts):
        asked.append(len(texts))
        return np.random.default_rng(0).standard_normal((len(texts), 4))

    train = Examples(texts=[f"text {i}" for i in range(3000)], labels={})
    test = Examples(texts=[f"text {i}" for i in range(3000, 5000)], labels={})
    shift = shift_between([], train, test, test, embed=embed, most=200)
    assert asked == [400]
    assert shift.words.texts == shift.embeddings.texts == 200


# ---- what is said


def test_nothing_is_said_where_all_is_well(board, corpus):
    assert found(figures(board, valid=0.80, test=0.78), corpus) is None
    assert found(figures(board, valid=0.80, test=0.60), replace(corpus, test=None)) is None
    assert found(figures(board, valid=0.801, test=0.8, n=10**7, m=10**7), corpus) is None


def test_other_texts_are_said_largest_first(board, corpus):
    moved = replace(corpus, test=other_words(corpus.test))
    said = found(figures(board, valid=0.815, test=0.544), moved)
    far, differs, do = paragraphs(said)
    assert "accuracy is .8150 on validation (500 texts) and .5440 on test (1,000 texts)" in far
    assert "fewer than 1 of 1,000,000" in far
    assert "tells from training texts" in differs and "no training text holds" in differs
    places = [differs.index(words) for _, words in sorted(said._differences(), reverse=True)]
    assert all(a < b for a, b in pairwise(places))
    assert "class shares" not in differs
    assert "data.valid=FILE" in do and "thresholds" in do
    assert said.shift.unseen.test > 0.3 > said.shift.unseen.valid
    assert said.figures["shift/topic/test_minus_valid"] == pytest.approx(-0.271)


def test_where_nothing_differs_labels_are_doubted(board, corpus):
    _, differs, do = paragraphs(found(figures(board, valid=0.8, test=0.5), corpus))
    assert "other annotators" in differs and "read some test texts" in do


def test_easier_tests_are_not_deplored(board, corpus):
    leaked = replace(corpus, test=corpus.train.select(range(300)))
    far, differs, do = paragraphs(found(figures(board, valid=0.6, test=0.9), leaked))
    assert ".6000 on validation" in far and "100.0 % of test's" in differs
    assert "easier" in do and "drop_leaks" in do and "label some" not in do


def test_what_class_shares_alone_would_do(board, corpus):
    """Test without sport, the class answered best: the others are answered as on validation, by
    validation's recalls."""
    rows = np.flatnonzero(corpus.test.labels["topic"] != 0)
    fewer = replace(corpus, test=corpus.test.select(rows))
    [result] = evaluate(FitWordVotes(share=0.9), fewer, None, seeds=(0,))
    edited = figures(Leaderboard([result]), valid=0.9, test=0.5)
    said = found(edited, fewer)
    recall = [each.recall for each in result.valid["topic"].per_class]
    labels = [part.labels["topic"] for part in (fewer.valid, fewer.test)]
    before, after = (np.bincount(each, minlength=4) / len(each) for each in labels)
    assert said.by_shares["topic"] == pytest.approx(np.dot(recall, after - before))
    assert said.by_shares["topic"] < 0
    change = f"{-said.by_shares['topic']:.4f}"[1:]
    assert f"alone would change the figure by −{change} of −.4000" in paragraphs(said)[1]
    assert "account for most of it" not in paragraphs(said)[2]
    half = 2 * said.by_shares["topic"]
    mostly = found(figures(Leaderboard([result]), valid=0.9, test=0.9 + 0.95 * half), fewer)
    assert "account for most of it" in paragraphs(mostly)[2]


def test_a_board_says_it_and_keeps_it(board, corpus):
    moved = replace(corpus, test=other_words(corpus.test))
    edited = figures(board, valid=0.815, test=0.544)
    said = found(edited, moved)
    told = Leaderboard(edited.results, said)
    data = json.loads(json.dumps(told.to_json()))
    again = Leaderboard.from_json(data)
    assert again.disagreement == said
    assert isinstance(again.disagreement.shift, Shift)
    below = told.to_markdown()
    assert "- Validation and test disagree: word-votes 0.9's accuracy" in below
    assert "\n- What differs, largest first:\n  - the texts themselves" in below
    assert edited.to_json()["disagreement"] is None
    assert "disagree" not in edited.to_markdown()
    del data["disagreement"]
    assert Leaderboard.from_json(data).disagreement is None
