"""
The gates keep their promises: type-I errors, models whose behaviour is known, the power of a good arm.

Rates are exact; the rest has 4000 simulations here and 20 000 in `make calibrate`, which also writes docs/statistics.md.
"""

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from calibration import models, multiplicity, page, sizes
from mmie.config import PROJECT
from mmie.power_table import PROCEED
from mmie.statistics import adjust

SIMS = 4000


def kinds(cells):
    return {(cell.gate, cell.n, cell.seeds) for cell in cells if not cell.exception}


@pytest.mark.parametrize("part", [sizes.means, sizes.methods, sizes.probes, sizes.memberships, sizes.decisions])
def test_simulated_type_one_errors(part):
    """No lower 99 % bound is above .055, known exceptions aside; and these are listed, not dropped."""
    cells = list(part(SIMS))
    assert [cell for cell in cells if not cell.holds and not cell.exception] == []
    assert kinds(cells) >= {(cell.gate, n, cell.seeds) for cell in cells for n in (200, 300) if not cell.exception}


def test_exact_type_one_errors():
    """Enumerated, so that there is no simulation error to forgive: never above .05."""
    cells = list(sizes.rates())
    assert max(cell.size for cell in cells) <= sizes.ALPHA
    assert {(cell.n, cell.seeds) for cell in cells} == {(n, s) for n in sizes.SIZES for s in (1, sizes.SEEDS)}
    # Near the level as well: a test that never rejects would keep its size too.
    assert max(cell.size for cell in cells if cell.seeds == 1) > 0.045


def test_the_suite_can_fail():
    """Values pooled over texts and seeds as if independent, which is what the test over both is there to avoid."""
    from mmie.simulation import Change, Moments

    units = np.random.default_rng(0).standard_normal((1000, 100, 1)).repeat(5, axis=2)
    pooled = Moments.of(units.reshape(1000, 500, 1)).t_tests[:, 0] <= 0.05
    assert not sizes.estimated("", "", 100, 5, pooled).holds
    change = Change(0.0, 1.0, 0.4, 1.0).draw(np.random.default_rng(0), 1000, 200, 1)
    assert not sizes.estimated("", "", 200, 1, change.t_tests[:, 0] <= 0.05).holds


@pytest.fixture(scope="module", params=[1, 5])
def passes(request):
    return {name: models.outcome(model, 200, request.param, SIMS) for name, model in models.MODELS.items()}


def rate(model, gate):
    return float(np.mean(model[gate]))


def test_base_itself_never_proceeds(passes):
    model = passes["identical"]
    assert rate(model, "G1") == rate(model, "G3") == rate(model, "G6") == rate(model, PROCEED) == 0
    assert rate(model, "G2") == rate(model, "G5") == 1


def test_a_perfect_model_passes_every_gate(passes):
    model = passes["perfect"]
    assert min(rate(model, gate) for gate in model if gate not in ("G6", PROCEED)) == 1
    assert rate(model, "G6") == rate(model, PROCEED) > 0.9


def test_a_collapsed_model_forgets_and_fails(passes):
    model = passes["collapsed"]
    assert rate(model, "G1") == 1
    assert rate(model, "G2") == rate(model, "G5") == rate(model, "G8") == rate(model, PROCEED) == 0


def test_an_over_unlearned_model_fails_membership(passes):
    model = passes["over-unlearned"]
    assert rate(model, "G1") == rate(model, "G2") == 1
    assert rate(model, "G6") == rate(model, PROCEED) == 0


def test_a_good_arm_proceeds():
    """LES .95 to .02, English unchanged, neighbours +4 %, Marathi +10 %, no leak: 90 % of experiments at 200 groups."""
    many = 20_000  # as in the docs: the rate is near enough to 90 % that fewer could not tell
    claim = models.outcome(models.good, 200, 1, many, models.CLAIM)[PROCEED]
    low, _ = proportion_confint(int(claim.sum()), many, 0.01, "beta")
    assert low >= 0.90
    # Not without what the claim supposes: as measured on the default experiment, 200 groups are not enough.
    assert rate(models.outcome(models.good, 200, 1, SIMS), PROCEED) < 0.80
    assert rate(models.outcome(models.good, 300, 1, SIMS), PROCEED) > 0.85


def test_multiplicity():
    """Six true nulls; the procedure in the simulation is statsmodels'."""
    p = np.random.default_rng(0).random((200, multiplicity.GATES)) ** 2
    assert list(multiplicity.rejects_any(p, 0.1)) == [bool((adjust(row) <= 0.1).any()) for row in p]
    found = multiplicity.any_false_pass(100_000)
    for level, without in ((0.05, 1 - 0.95**6), (0.10, 1 - 0.90**6)):
        assert found[level] == pytest.approx((without, level), abs=0.005)


def test_bh_leaves_proceed_unchanged_at_q_equal_to_alpha():
    rng = np.random.default_rng(1)
    for p in rng.uniform(1e-9, 0.08, (500, 6)):
        assert bool((adjust(p) <= 0.05).all()) == bool((p <= 0.05).all())


def test_the_page_has_a_place_for_everything_measured():
    text = (PROJECT / "docs/statistics.md").read_text(encoding="utf-8")
    cells = [sizes.Cell("G1", "x", n, 1, 0.04, 0.03, 0.05, 10, sizes.UNUSED if n == 60 else "") for n in sizes.SIZES]
    parts = page.all_parts([*cells, sizes.Cell("G2", "x", 200, 1, 0.07, 0.06, 0.08, 10, sizes.SKEWED)], 50)
    written = page.filled(text, parts)
    assert page.filled(written, parts) == written
    assert all(part in written for part in parts.values())
    with pytest.raises(ValueError, match="has places for"):
        page.filled(text, {"sizes": ""})


def test_the_page_shows_what_the_assumptions_are():
    """A changed assumption needs `make calibrate`."""
    text = (PROJECT / "docs/statistics.md").read_text(encoding="utf-8")
    assert page.assumptions() in text, "run `make calibrate`"
