"""docs/comparison.md is written from the tables of a run."""

import yaml

import comparison as script
from metrics_tables import COLLAPSED, IDENTICAL, PERFECT
from results_folder import write_results


def test_the_page_has_every_arm_its_verdict_the_scripts_and_the_contrasts(tmp_path):
    models = {"lora": PERFECT, "lora_native": PERFECT, "lora_roman": IDENTICAL, "reft": COLLAPSED}
    write_results(tmp_path / "results", models, n=12, seeds=(0, 1))
    overlay = {
        "seeds": [0, 1],
        "arms": {"lora_native": {"method": "lora"}, "lora_roman": {"method": "lora"}, "grun": False},
        "report": {"contrasts": [["lora", "reft"], ["lora", "sae_gate"]]},
    }
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    page = tmp_path / "page.md"
    script.main(str(tmp_path), str(tmp_path / "overlay.yaml"), str(page))
    text = page.read_text(encoding="utf-8")
    assert "5 arms, seeds 0, 1" in text
    for arm, verdict in (("lora_roman", "STOP"), ("reft", "STOP")):
        assert f"| `{arm}` | {verdict} |" in text
    assert "lora against reft; means over 2 seeds" in text and "sae_gate" not in text
    matrix = text.split("## One script or both")[1].split("##")[0]
    assert [row.split("|")[1].strip() for row in matrix.splitlines() if row.startswith("| ")][1:] == [
        "nothing (base)", "both", "Devanagari", "Latin",
    ]  # fmt: skip


def test_an_edits_numbers_are_counted(tmp_path):
    import torch

    from mmie import comparison, tensors

    tensors.save({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, tmp_path / "x.safetensors")
    assert comparison._elements(tmp_path / "x.safetensors") == 17
