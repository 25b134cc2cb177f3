"""Objectives: hand-computed values, and the sign of what their gradient does."""

import math

import pytest
import torch

from mmie import objectives as o

LOGITS = torch.tensor([[math.log(0.7), math.log(0.2), math.log(0.1)], [math.log(0.1), math.log(0.1), math.log(0.8)]])
LABELS = torch.tensor([0, 1])


def after_a_step(loss_of, logits, rate=0.5):
    """Nll of the labels after one gradient step on the logits."""
    moved = logits.clone().requires_grad_()
    loss_of(moved).backward()
    return o.token_nll((moved - rate * moved.grad).detach(), LABELS)


def test_token_nll_is_minus_the_log_probability():
    assert o.token_nll(LOGITS, LABELS).tolist() == pytest.approx([-math.log(0.7), -math.log(0.1)], abs=1e-6)


def test_a_sampled_column_counts_as_many_times_as_it_stands_for():
    # Column 2 stands for three equal ids: the normaliser is that of the five-word vocabulary.
    full = torch.tensor([[1.0, 0.0, 2.0, 2.0, 2.0]])
    sampled, weight = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([0.0, 0.0, math.log(3)])
    label = torch.tensor([1])
    assert o.token_nll(sampled, label, weight) == pytest.approx(o.token_nll(full, label))
    other, other_sampled = torch.tensor([[0.0, 1.0, 0.5, 0.5, 0.5]]), torch.tensor([[0.0, 1.0, 0.5]])
    assert o.kl_to_base(other_sampled, sampled, weight) == pytest.approx(o.kl_to_base(other, full))


def test_sequence_sums_add_over_each_sequence():
    values, rows = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([0, 2, 2, 0])
    assert o.sequence_sums(values, rows, 3).tolist() == [9.0, 0.0, 6.0]


def test_redirect_is_the_mean_nll_and_makes_the_labels_likelier():
    nll = o.token_nll(LOGITS, LABELS)
    assert float(o.redirect(nll)) == pytest.approx(-(math.log(0.7) + math.log(0.1)) / 2, abs=1e-6)
    assert (after_a_step(lambda x: o.redirect(o.token_nll(x, LABELS)), LOGITS) < nll).all()


def test_graddiff_makes_the_labels_less_likely_up_to_the_ceiling():
    nll = o.token_nll(LOGITS, LABELS)
    assert float(o.graddiff(nll, 100.0)) == pytest.approx(-float(nll.mean()))
    assert float(o.graddiff(nll, 2.0)) == pytest.approx(-(float(nll[0]) + 2.0) / 2)
    moved = after_a_step(lambda x: o.graddiff(o.token_nll(x, LABELS), 2.0), LOGITS)
    assert moved[0] > nll[0]
    assert moved[1] == pytest.approx(float(nll[1])), "a token above the ceiling pulls no further"


def test_npo_matches_the_formula_and_makes_the_labels_less_likely():
    log_prob, reference = torch.tensor([-5.0, -1.0]), torch.tensor([-4.0, -1.0])
    by_hand = [-(2 / 0.1) * math.log(1 / (1 + math.exp(0.1 * d))) for d in (-1.0, 0.0)]
    assert float(o.npo(log_prob, reference, 0.1)) == pytest.approx(sum(by_hand) / 2, rel=1e-6)
    assert float(o.npo(reference, reference, 0.1)) == pytest.approx(20 * math.log(2), rel=1e-6)
    rows = torch.tensor([0, 0])
    base = -o.sequence_sums(o.token_nll(LOGITS, LABELS), rows, 1)
    moved = after_a_step(lambda x: o.npo(-o.sequence_sums(o.token_nll(x, LABELS), rows, 1), base, 0.1), LOGITS)
    assert (moved > o.token_nll(LOGITS, LABELS)).all()


def test_simnpo_matches_the_formula_and_does_not_depend_on_length():
    nll, lengths = torch.tensor([6.0, 2.0]), torch.tensor([3.0, 4.0])
    sigmoid = [1 / (1 + math.exp(-4.5 * (v - 0.25))) for v in (2.0, 0.5)]
    by_hand = -(2 / 4.5) * sum(map(math.log, sigmoid)) / 2
    assert float(o.simnpo(nll, lengths, 4.5, 0.25)) == pytest.approx(by_hand, rel=1e-5)
    assert float(o.simnpo(10 * nll, 10 * lengths, 4.5, 0.25)) == pytest.approx(by_hand, rel=1e-5)
    rows, ones = torch.tensor([0, 0]), torch.tensor([2.0])
    moved = after_a_step(lambda x: o.simnpo(o.sequence_sums(o.token_nll(x, LABELS), rows, 1), ones, 4.5, 0.0), LOGITS)
    assert (moved > o.token_nll(LOGITS, LABELS)).all()


def test_state_distance_is_the_mean_square_in_units_of_the_norm():
    states, target = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([0.0, 1.0])
    assert float(o.state_distance(states, target, 2.0)) == pytest.approx((18 + 0) / 2 / 4)
    assert float(o.state_distance(states, states, 2.0)) == 0
    assert float(o.state_distance(100 * states, 100 * target, 200.0)) == pytest.approx(18 / 2 / 4), "no absolute scale"


def test_rmu_pulls_towards_one_seeded_direction_of_the_layers_own_length():
    c_e = o.rmu_target(640, 1.5, 6400.0, 3)
    assert float(c_e.norm()) == pytest.approx(1.5 * 6400)
    assert torch.equal(c_e, o.rmu_target(640, 1.5, 6400.0, 3))
    other = o.rmu_target(640, 1.5, 6400.0, 4)
    assert abs(float(torch.cosine_similarity(c_e, other, dim=0))) < 0.15, "4 standard errors: not one orthant"


def test_kl_is_from_base_to_the_edited_model():
    base, edited = LOGITS[:1], LOGITS[1:]
    p, q = [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]
    by_hand = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(o.kl_to_base(base, edited)) == pytest.approx(by_hand, abs=1e-6)
    assert float(o.kl_to_base(edited, base)) != pytest.approx(by_hand, abs=1e-2)
    assert float(o.kl_to_base(base, base)) == pytest.approx(0, abs=1e-7)
