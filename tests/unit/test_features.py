from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mmie import tables
from mmie.examples import RETAIN, collate, plain
from mmie.features import Languages, Means, by_script, contrast, features, fisher_share, measure, scores, select, why
from mmie.influence import influence, slopes
from mmie.model import load
from mmie.sparse_code import SparseCode
from mmie.unlearn import SampledHead
from small_cache import ROLES, small_corpus
from tiny import RUNTIME

LANGUAGES = Languages(("hi", "hi_latn"), ("en", "ur"), ("hi_shuffled",))
# Mean activations on hi, hi_latn, en, ur, hi_shuffled.
LATENTS = {
    "both scripts": [5, 4, 1, 1, 1],
    "native": [9, 0, 1, 2, 1],
    "roman": [0, 8, 1, 0, 0],
    "script": [7, 0, 0, 0, 7],
    "urdu too": [9, 0, 0, 12, 0],
    "english": [0, 0, 6, 0, 0],
    "dead": [0, 0, 0, 0, 0],
    "native, weaker": [3, 0, 1, 2, 1],
}
NAMES = list(LATENTS)


def means(changed=None, fires=1.0):
    """Every latent fires at one strength, so that its mean square is the square of its mean; influence is a tenth."""
    table = {**LATENTS, **(changed or {})}
    mean = np.array(list(table.values()), dtype=float).T
    return Means(LANGUAGES.all, mean, mean**2, mean[:4] / 10, fires * (mean.sum(0) > 0) * 10, 100)


def names(latents):
    return [NAMES[i] for i in latents]


def test_scores_follow_their_definitions():
    found = scores(means(), LANGUAGES)
    assert found["semantic"].tolist() == [3, -2, -1, -7, -12, -6, 0, -2]
    assert found["per_script"].tolist() == [4, 7, 7, 0, -3, -6, 0, 1]
    assert found["contrast"].tolist() == [3.5, 3, 3.5, 3.5, -1.5, -3, 0, 0]
    assert contrast(means(), LANGUAGES).shape == (8,) and by_script(means(), LANGUAGES).shape == (2, 8)


def test_fisher_ranks_by_the_mean_square_among_the_highest_ratios():
    found = fisher_share(means(), LANGUAGES)
    # Mean squares on Hindi: 20.5, 40.5, 32, 24.5, 40.5, 0, 0, 4.5; on English and Urdu: 1, 2.5, .5, 0, 72, 18, 0, 2.5.
    by_hand = [20.5 / 21.5, 40.5 / 43, 32 / 32.5, 1, 40.5 / 112.5, 0, 0, 4.5 / 7]
    assert found == pytest.approx(by_hand)
    # The 95th percentile of the seven that fire is the largest: DSG sees no controls, and takes the script's latent.
    assert scores(means(), LANGUAGES)["fisher"].tolist() == [0, 0, 0, 24.5, 0, 0, 0, 0]
    assert names(select(means(), means(), LANGUAGES, "fisher", 8)) == ["script"]
    quiet = means({"script": [7, 0, 7, 7, 7]})
    assert names(select(means(), quiet, LANGUAGES, "fisher", 8)) == [], "tune does not confirm it"
    assert scores(quiet, LANGUAGES)["fisher"].tolist() == [0, 0, 32, 0, 0, 0, 0, 0]


def test_fisher_orders_latents_as_dsgs_ratio_does():
    draw = np.random.default_rng(0)
    square = draw.random((5, 200))
    many = Means(LANGUAGES.all, square, square, square[:4], np.ones(200), 100)
    ratio = square[:2].mean(0) / square[2:4].mean(0)
    assert (np.argsort(fisher_share(many, LANGUAGES)) == np.argsort(ratio)).all()
    high = ratio >= np.percentile(ratio, 95, method="higher")
    expected = sorted(np.flatnonzero(high), key=lambda i: -square[:2, i].mean())[:5]
    assert select(many, many, LANGUAGES, "fisher", 5).tolist() == expected


def test_grad_compares_influence_and_not_activation():
    calm = replace(
        means(), influence=np.array([[0, 0, 0, 0.2], [0, 0, 0, 0.4], [0, 0, 0, 0.1], [0, 0, 0, 0.1]]).repeat(2, 1)
    )
    assert scores(calm, LANGUAGES)["grad"] == pytest.approx([0] * 6 + [0.2] * 2)
    assert scores(means(), LANGUAGES)["grad"] == pytest.approx(scores(means(), LANGUAGES)["contrast"] / 10)
    table = features(means(), means(), LANGUAGES, "grad", 2, seed=0)
    reasons = dict(zip(NAMES, table["why"], strict=True))
    assert reasons["urdu too"] == "matters on ur" and table["grad_selected"].sum() == 2


def test_selectors_take_what_they_are_for():
    args = (means(), means(), LANGUAGES)
    assert names(select(*args, "semantic", 8)) == ["both scripts"]
    assert set(names(select(*args, "contrast", 8))) == {"both scripts", "native", "roman", "script"}
    assert names(select(*args, "per_script", 8)) == ["native", "both scripts", "native, weaker", "roman"]


def test_per_script_takes_equally_many_for_each_script():
    assert names(select(means(), means(), LANGUAGES, "per_script", 2)) == ["native", "roman"]
    assert len(select(means(), means(), LANGUAGES, "per_script", 3)) == 3


def test_what_the_tune_split_does_not_confirm_is_not_taken():
    tune = means({"native": [9, 0, 1, 10, 1]})
    assert "native" not in names(select(means(), tune, LANGUAGES, "per_script", 8))
    assert why(means(), tune, LANGUAGES, "per_script", np.array([2]), means().fires > 0)[1].startswith("not confirmed")


def test_reasons_in_words():
    table = features(means(), means(), LANGUAGES, "per_script", 2, seed=0)
    reasons = dict(zip(NAMES, table["why"], strict=True))
    assert reasons["native"] == reasons["roman"] == "taken"
    assert reasons["both scripts"] == "score below the 2 taken"
    assert reasons["script"] == "fires on hi_shuffled" and reasons["urdu too"] == "fires on ur"
    assert reasons["english"] == "quiet on hi and hi_latn" and reasons["dead"] == "never fires"
    semantic = features(means(), means(), LANGUAGES, "semantic", 2, seed=0)["why"]
    assert semantic[NAMES.index("roman")] == "quiet on hi"


def test_the_random_control_is_alive_disjoint_seeded_and_as_large():
    table = features(means(), means(), LANGUAGES, "per_script", 2, seed=0)
    drawn = table[table["random_selected"]]
    assert len(drawn) == table["per_script_selected"].sum() == 2
    assert drawn["alive"].all() and not drawn["per_script_selected"].any()
    draws = [
        tuple(np.flatnonzero(features(means(), means(), LANGUAGES, "per_script", 2, seed)["random_selected"]))
        for seed in range(9)
    ]
    assert draws[0] == tuple(np.flatnonzero(table["random_selected"])) and len(set(draws)) > 1


def test_the_table_fits_its_schema(tmp_path):
    table = features(means(), means(), LANGUAGES, "contrast", 3, seed=0).assign(site=1, layer=9)
    tables.write(table, tmp_path / "features.parquet", tables.FEATURES)
    assert table["frequency"].max() == pytest.approx(0.1)


def test_nothing_to_select_names_the_selector_and_what_others_find():
    quiet = {name: [0, 0, 1, 1, 1] for name in NAMES}
    with pytest.raises(ValueError, match=r"features\.selector: semantic.*contrast 0"):
        features(means(quiet), means(quiet), LANGUAGES, "semantic", 2, seed=0)


def test_too_few_latents_for_the_control_are_named():
    few = {name: [0] * 5 for name in NAMES[1:]}
    with pytest.raises(ValueError, match=r"features\.count"):
        features(means(few), means(few), LANGUAGES, "semantic", 2, seed=0)


def test_languages_come_from_the_roles_in_the_cache():
    tokens = pd.DataFrame(
        [(n, r) for n, r in ROLES.items() if r not in ("unseen", "mixed")], columns=["language", "role"]
    )
    found = Languages.of(tokens)
    assert found.forget == ("hi", "hi_latn") and found.others == ("bn", "en", "pa", "ur")
    assert found.controls == ("bn_deva", "en_deva", "hi_shuffled", "latin_shuffled", "pa_deva")


def test_means_are_over_tokens_and_one_split():
    code = SparseCode(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), torch.tensor([1.5, 0.0]))
    states = torch.tensor([[1.0, 2], [3, 4], [5, 0], [9, 9], [0, 0], [2, 2], [0, 1]]).bfloat16()
    languages = ["hi", "hi", "hi", "hi", "hi_latn", "en", "ur"]
    tokens = pd.DataFrame(
        {
            "row": range(7),
            "doc_id": ["a", "a", "b", "c", "d", "e", "f"],
            "language": languages,
            "split": ["train", "train", "train", "tune", "train", "train", "train"],
        }
    )
    bare = Languages(("hi", "hi_latn"), ("en", "ur"), ())
    found = measure(code, states, tokens, bare, "train", np.zeros((4, 2)))
    assert found.of(["hi"]).tolist() == [[(0 + 3 + 5) / 3, 2.0]]  # 1 is below the first latent's threshold
    assert found.of(["hi"], "square").tolist() == [[(0 + 9 + 25) / 3, (4 + 16 + 0) / 3]]
    assert found.n_tokens == 6 and found.fires.tolist() == [3, 4]
    with pytest.raises(ValueError, match=r"hi_latn.*data\.splits\.tune"):
        measure(code, states, tokens, bare, "tune", np.zeros((4, 2)))


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, RUNTIME)


def random_code(d_model, d_sae=12):
    draw = torch.Generator().manual_seed(0)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, d_model, generator=draw), dim=-1)
    return SparseCode(decoder.T, torch.zeros(d_sae), decoder, torch.zeros(d_model), torch.zeros(d_sae))


def test_the_slope_is_how_the_log_probability_changes(loaded):
    """Against the change itself: the layer's output moved a little, the whole vocabulary, one text."""
    model, tokenizer = loaded
    text = small_corpus()["text"].iloc[1]
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    batch = collate([plain(tokenizer, text, RETAIN, 48)], 0, tokenizer)
    states, slope = slopes(model, SampledHead(model, [batch], 0), 1, batch)

    def log_probability(move=None):
        hook = lambda m, a, out: out if move is None else out + move  # noqa: E731
        handle = model.get_decoder().layers[1].register_forward_hook(hook)
        with torch.no_grad():
            found = model(ids).logits[0, :-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None]).sum()
        handle.remove()
        return float(found)

    move = torch.randn(states.shape, generator=torch.Generator().manual_seed(1)) * 1e-3
    change = (log_probability(move) - log_probability(-move)) / 2
    assert float((slope * move).sum()) == pytest.approx(change, rel=0.02)


def test_influence_is_relu_of_activation_times_gradient_over_the_texts_own_tokens(loaded):
    model, tokenizer = loaded
    corpus = small_corpus()
    code = random_code(model.config.hidden_size)
    found = influence(model, tokenizer, code, 1, corpus, ["hi", "en"], 0)
    expected = []
    for text in corpus.loc[corpus["language"] == "hi", "text"]:
        batch = collate([plain(tokenizer, text, RETAIN, 48)], 0, tokenizer)
        states, slope = slopes(model, SampledHead(model, [batch], 0), 1, batch)
        for h, g in zip(states[0, 1:], slope[0, 1:], strict=True):
            z = code.encode(h)
            expected.append([max(0.0, float(z[i] * (g @ code.W_dec[i]))) for i in range(12)])
    assert found.shape == (2, 12)
    assert found[0] == pytest.approx(np.mean(expected, axis=0), rel=1e-3, abs=1e-6)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_the_stage_selects_the_latents_that_were_put_in(tiny_model, tmp_path, storage):
    from mmie import cache, sae
    from select_features import main
    from small_cache import LAYERS, write_cache

    made = write_cache(tmp_path, tiny_model, storage=storage)
    index, corpus = tables.read(made["index"], tables.TOKENS), tables.read(made["corpus"], tables.CORPUS)
    tokens = cache.described(index, corpus)
    states = cache.reading(made["layers"], made["index"])[LAYERS[0]]
    rows = [{name: 0.0 for name in tables.LAYERS.names} | {"layer": n, "rank": r} for r, n in enumerate(LAYERS, 1)]
    tables.write(pd.DataFrame(rows), tmp_path / "layers.parquet", tables.LAYERS)
    # One latent per token id: fires on the tokens that are most like the token's mean state.
    ids = [
        tokens.loc[tokens["language"] == name, "token"].mode()[0] for name in ("hi", "hi_latn", "en", "ur", "pa", "bn")
    ]
    centres = torch.stack([states[torch.tensor((index["token"] == i).to_numpy())].float().mean(0) for i in ids])
    directions = torch.nn.functional.normalize(centres - centres.mean(0), dim=-1)
    code = SparseCode(directions.T, torch.zeros(6), directions, centres.mean(0), torch.full((6,), 0.1))
    cfg = {
        "architecture": "jumprelu",
        "normalize_activations": "none",
        "reshape_activations": "none",
        "apply_b_dec_to_input": True,
    }
    sae.save(code, cfg, tmp_path / "w.safetensors", tmp_path / "cfg.json")
    main(
        activations=made["layers"], index=made["index"], corpus=made["corpus"], ranking=str(tmp_path / "layers.parquet"),
        weights=str(tmp_path / "w.safetensors"), cfg=str(tmp_path / "cfg.json"), model=made["model"],
        features=str(tmp_path / "f.parquet"), latent_tokens=str(tmp_path / "t.parquet"), site=1, settings={"selector": "contrast", "count": 2, "seed": 0},
        runtime=RUNTIME,
    )  # fmt: skip
    table = tables.read(tmp_path / "f.parquet", tables.FEATURES)
    assert len(table) == 6 and set(table["layer"]) == {LAYERS[0]}
    assert table.loc[table["contrast_selected"], "latent"].isin([0, 1]).any()
    shown = tables.read(tmp_path / "t.parquet", tables.LATENT_TOKENS)
    taken = set(table.loc[table["contrast_selected"], "latent"])
    assert set(shown["latent"]) <= taken and "hi" in set(shown["language"])
    assert shown.groupby(["latent", "language"])["activation"].is_monotonic_decreasing.all()


def test_top_tokens_are_distinct_and_best_first():
    from mmie.latent_tokens import top_tokens

    class Letters:
        def decode(self, ids):
            return "abcdefgh"[ids[0]]

    code = SparseCode(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), torch.full((2,), 0.5))
    states = torch.tensor([[1.0, 0], [3, 0], [2, 0], [0.4, 0], [0, 9], [5, 0]])
    tokens = pd.DataFrame({"row": range(6), "token": [1, 1, 0, 2, 1, 3], "language": [*["hi"] * 5, "en"]})
    found = top_tokens(code, [0, 1], states, tokens[tokens["row"] != 5], Letters())
    hindi = [(r.latent, r.rank, r.token, r.activation) for r in found.itertuples()]
    assert hindi == [(0, 1, "b", 3.0), (0, 2, "a", 2.0), (1, 1, "b", 9.0)]
    assert set(top_tokens(code, [0], states, tokens, Letters())["language"]) == {"hi", "en"}
