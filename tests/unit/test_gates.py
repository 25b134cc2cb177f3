"""Interventions and gates: frozen edits equal trained ones, and gates open where they should."""

import math

import pytest
import torch

from mmie.examples import training_rows
from mmie.interventions import Grun, Loreft, frozen, intervening
from mmie.unlearn import Statistics
from small_arms import DATA, hooks, seen


@pytest.mark.parametrize("kind", ["loreft", "grun"])
def test_a_frozen_edit_is_the_trained_one_and_a_fresh_one_is_the_identity(kind):
    from mmie.edits.hook import rewrite

    torch.manual_seed(0)
    edit = Loreft(3, seen()) if kind == "loreft" else Grun(3, seen(), 5)
    h = torch.randn(2, 4, 16)
    h[0, 0] *= 100
    assert torch.equal(edit(h), h)
    with torch.no_grad():
        edit.learned_source.weight.normal_()
        edit.learned_source.bias.normal_()
    parts = {name.split(".")[1]: value for name, value in frozen({0: edit}).items()}
    with torch.no_grad():
        assert torch.allclose(rewrite(parts)(h), edit(h), atol=1e-4)
        assert torch.equal(edit(h)[0, 0], h[0, 0]), "an attention sink passes"
    assert not torch.allclose(edit(h)[0, 1], h[0, 1])


def test_loreft_is_pyrefts_formula():
    torch.manual_seed(0)
    edit = Loreft(3, seen())
    with torch.no_grad():
        edit.learned_source.weight.normal_()
        edit.learned_source.bias.normal_()
        parts = edit.tensors()
        h = torch.randn(5, 16)
        expected = h + (h @ parts["W"].T + parts["b"] - h @ parts["R"].T) @ parts["R"]
        assert torch.allclose(edit(h), expected, atol=1e-4)
    assert torch.allclose(parts["R"] @ parts["R"].T, torch.eye(3), atol=1e-5)


def test_losing_orthonormality_is_noticed():
    edit = Loreft(3, seen())
    torch.nn.utils.parametrize.remove_parametrizations(edit.rotate_layer, "weight")
    with torch.no_grad():
        edit.rotate_layer.weight.mul_(0.9)
    with pytest.raises(ValueError, match="orthonormal"):
        edit.tensors()


def test_a_warmed_gate_opens_on_the_forget_language_and_stays_closed_on_the_others(loaded, given):
    from mmie.gates import labelled, warm

    torch.manual_seed(0)
    states, labels = labelled(2, given)
    edit = Grun(3, Statistics(states.float().mean(0), states.float().std(0), math.inf), 16)
    warm(edit, 2, given, 150, 128, 5e-3, 0)
    with torch.no_grad():
        open_ = torch.sigmoid(edit.gate((states.float() - edit.mean) / edit.deviation))[:, 0]
    assert open_[labels > 0].mean() > 0.8
    assert open_[labels == 0].mean() < 0.2
    with pytest.raises(ValueError, match=r"layer 3 is not cached \(cached: 1, 2\)"):
        labelled(3, given)


def test_gates_read_train_activations_only(loaded, given):
    from mmie.gates import labelled

    _, tokenizer = loaded
    rows = training_rows(given.corpus, DATA, spelled=True)
    states, labels = labelled(1, given)
    lengths = {text: len(tokenizer(text)["input_ids"]) - 1 for text in rows["text"]}
    assert len(states) == sum(lengths.values())
    assert int(labels.sum()) == sum(lengths[t] for t in rows.loc[rows["language"].isin(["hi", "hi_latn"]), "text"])


def test_intervening_leaves_no_hook(loaded):
    model, _ = loaded
    edit = Loreft(2, Statistics(torch.zeros(64), torch.ones(64), math.inf))
    before = hooks(model)
    with intervening(model, {1: edit}):
        assert hooks(model) == before + 1
    assert hooks(model) == before
