"""Metrics: every measurement once, with its keys, and only where arms and base share their units."""

import json

import numpy as np
import pandas as pd
import pytest

from metrics import main
from mmie import tables
from mmie.metrics import gather, read_card

GROUPS = ("g1", "g2", "g3")
FAMILIES = {"forget_native": "hi", "retain_en": "en"}
SCRIPTS = {"hi": "Deva", "en": "Latn"}


def measured(arms=("base", "lora"), samples=1):
    """Tables of a tiny experiment, as the stages before write them."""
    prompts, corpus, lid, likelihood, probes, membership = [], [], [], [], [], []
    for family, language in FAMILIES.items():
        for group in GROUPS:
            doc = f"{group}:{language}"
            about = {"language": language, "script": "Latn", "group_id": group, "doc_id": doc, "text": "x"}
            prompts.append({"prompt_id": f"{family}:{group}", "family": family, "attack": "", **about})
            corpus.append({**about, "split": "test", "role": "forget", "topic": "", "register": ""})
    for arm in arms:
        run = {"arm": arm, "seed": 0, "variant": "plain"}
        for prompt in prompts:
            for sample in range(samples):
                lid.append(
                    {
                        **run, "prompt_id": prompt["prompt_id"], "sample": sample, "language": "und" if sample else "hi",
                        "script": "Deva", "confidence": 1.0, "fasttext": "", "cld3": "", "rule": "script",
                        "target_share": 0.5, "les": sample % 2, "les_broad": 1, "prefix_es": 0.2, "line_pass": 1,
                        "word_pass": 0.5, "repetitive": 0,
                    }
                )  # fmt: skip
        for i, doc in enumerate(corpus):
            kl = 0.1 if i == 0 else None
            likelihood.append(
                {**run, "doc_id": doc["doc_id"], "nll_sum": 30.0, "n_tokens": 10, "n_bytes": 40, "kl_to_base": kl}
            )
        for number, member in enumerate((True, False)):
            canary = {"canary_id": f"canary:{number}", "language": "hi", "member": member, "n_tokens": 9}
            scores = {"loss": -1.0, "zlib": -2.0, "min_k": -3.0, "min_k_plus": -4.0, "reference": 0.5}
            scores["gradnorm"] = None if number else -5.0
            membership.append({**run, **canary, **scores})
        for group in GROUPS:
            for side, label in (("hi", 1), ("ur", 0)):
                probes.append(
                    {
                        **run, "layer": 6, "contrast": "hi-ur", "doc_id": f"{group}:{side}", "group_id": group,
                        "label": label, "score": 0.5, "nats": 0.1, "auc": 0.5,
                    }
                )  # fmt: skip
    cards = [
        {"arm": a, "seed": 0, "variant": "plain", "edits": [{"kind": "lora", "layers": [9, 6]}] if a != "base" else []}
        for a in arms
    ]
    frames = {"prompts": prompts, "corpus": corpus, "lid": lid, "likelihood": likelihood, "probes": probes}
    frames["membership"] = membership
    return {**{name: pd.DataFrame(rows) for name, rows in frames.items()}, "cards": cards, "scripts": SCRIPTS}


def test_every_measurement_is_there_once():
    table = gather(**measured())
    counts = table[table["arm"] == "lora"].groupby("metric").size().to_dict()
    prompts = dict.fromkeys(
        ("les", "les_broad", "target_share", "prefix_es", "line_pass", "word_pass", "und", "repetitive"), 6
    )
    texts = {"nll": 6, "n_tokens": 6, "n_bytes": 6, "kl": 1}
    attacks = dict.fromkeys(("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus", "mia_reference"), 2)
    attacks["mia_gradnorm"] = 1  # measured on one of the two
    assert counts == {**prompts, **texts, **attacks, "probe_score": 6, "probe_nats": 6, "first_edited_layer": 1}
    tables_row = table[(table["metric"] == "nll") & (table["unit_id"] == "g1:en")].iloc[0]
    assert (tables_row["family"], tables_row["language"], tables_row["group_id"], tables_row["value"]) == (
        "texts",
        "en",
        "g1",
        30.0,
    )
    card = table[table["family"] == "card"]
    assert list(card["arm"]) == ["lora"] and list(card["value"]) == [6.0]


def test_canaries_are_their_own_groups_and_carry_the_script_of_their_language():
    table = gather(**measured())
    rows = table[(table["arm"] == "lora") & (table["metric"] == "mia_min_k")]
    columns = ["family", "language", "script", "layer", "unit_id", "group_id", "value"]
    assert rows[columns].to_numpy().tolist() == [
        ["member", "hi", "Deva", -1, "canary:0", "canary:0", -3.0],
        ["nonmember", "hi", "Deva", -1, "canary:1", "canary:1", -3.0],
    ]


def test_without_canaries_there_is_no_row_of_them():
    inputs = measured()
    inputs["membership"] = tables.MEMBERSHIP.empty_table().to_pandas()
    assert not gather(**inputs)["metric"].str.startswith("mia").any()


def test_adversarial_prompts_are_a_family_per_attack():
    inputs = measured()
    prompts = inputs["prompts"]
    prompts.loc[prompts["family"] == "retain_en", ["family", "attack"]] = ["adversarial", "few_shot"]
    assert set(gather(**inputs).query("metric == 'les'")["family"]) == {"forget_native", "adversarial:few_shot"}


def test_row_order_of_inputs_does_not_matter():
    one = measured()
    other = {k: v.sample(frac=1, random_state=1) if isinstance(v, pd.DataFrame) else v for k, v in one.items()}
    other["cards"] = one["cards"][::-1]
    pd.testing.assert_frame_equal(gather(**one), gather(**other))


def test_samples_are_averaged():
    table = gather(**measured(samples=2))
    values = table.groupby("metric")["value"].mean()
    assert values["les"] == 0.5 and values["und"] == 0.5 and values["les_broad"] == 1


@pytest.mark.parametrize(
    ("name", "keep", "message"),
    [
        ("lid", lambda t: ~((t["arm"] == "lora") & (t["prompt_id"] == "retain_en:g2")), "lora, seed 0, plain lacks 8"),
        ("likelihood", lambda t: ~((t["arm"] == "base") & (t["doc_id"] == "g2:hi")), "lora, seed 0, plain has 3"),
        ("probes", lambda t: t["arm"] == "base", "lora, seed 0, plain lacks 12"),
        ("prompts", lambda t: t["prompt_id"] != "retain_en:g2", "is not in results/data/prompts.parquet"),
        ("corpus", lambda t: t["doc_id"] != "g2:hi", "is not in results/data/corpus.parquet"),
    ],
)
def test_other_units_than_base_are_refused(name, keep, message):
    inputs = measured()
    inputs[name] = inputs[name][keep(inputs[name])]
    with pytest.raises(ValueError, match=message):
        gather(**inputs)


def test_no_base_no_metrics():
    with pytest.raises(ValueError, match="base"):
        gather(**measured(arms=("lora",)))


def test_missing_values_and_repetitions_are_refused():
    inputs = measured()
    inputs["likelihood"].loc[0, "nll_sum"] = np.nan
    with pytest.raises(ValueError, match="no value"):
        gather(**inputs)
    inputs = measured()
    inputs["likelihood"] = pd.concat([inputs["likelihood"], inputs["likelihood"].iloc[:1]])
    with pytest.raises(ValueError, match="twice"):
        gather(**inputs)


def test_cards_are_checked(tmp_path):
    path = tmp_path / "arm.json"
    with pytest.raises(ValueError, match="missing"):
        read_card(path)
    path.write_text('{"arm": ')
    with pytest.raises(ValueError, match="cannot be read"):
        read_card(path)
    path.write_text('{"arm": "lora"}')
    with pytest.raises(ValueError, match="not a card"):
        read_card(path)


def test_the_stage_reads_files_and_writes_one(tmp_path):
    inputs = measured()
    schemas = {
        "prompts": tables.PROMPTS,
        "corpus": tables.CORPUS,
        "lid": tables.LID,
        "likelihood": tables.LIKELIHOOD,
        "probes": tables.PROBES,
        "membership": tables.MEMBERSHIP,
    }
    for name, schema in schemas.items():
        for arm in ("base", "lora"):
            rows = inputs[name] if "arm" not in inputs[name] else inputs[name][inputs[name]["arm"] == arm]
            tables.write(rows, tmp_path / f"{name}_{arm}.parquet", schema)
    for card in inputs["cards"]:
        (tmp_path / f"{card['arm']}.json").write_text(json.dumps(card))

    def both(name):
        return [str(tmp_path / f"{name}_{arm}.parquet") for arm in ("lora", "base")]

    main(
        prompts=both("prompts")[0], corpus=both("corpus")[0], lid=both("lid"), likelihood=both("likelihood"),
        probes=both("probes"), membership=both("membership"),
        cards=[str(tmp_path / "lora.json"), str(tmp_path / "base.json")], metrics=str(tmp_path / "m.parquet"),
        settings={"data": {"scripts": SCRIPTS}},
    )  # fmt: skip
    pd.testing.assert_frame_equal(tables.read(tmp_path / "m.parquet", tables.METRICS), gather(**inputs))
