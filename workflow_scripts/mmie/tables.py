"""The tables of this workflow: one schema each, every column with its meaning; all Parquet passes here."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

TEXT, INT, REAL, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()


def column(name: str, type_: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"meaning": meaning})


def table(name: str, path: str, meaning: str, *columns: pa.Field) -> pa.Schema:
    return pa.schema(columns, metadata={"table": name, "path": path, "meaning": meaning})


RUN = [
    column("arm", TEXT, "Arm, a key of config `arms` (`base` is the unedited model)."),
    column("seed", INT, "Training seed of the run."),
    column("variant", TEXT, "What was done to the edited model afterwards; `plain` is nothing."),
]

CORPUS = table(
    "corpus",
    "results/data/corpus.parquet",
    "One row per text.",
    column("doc_id", TEXT, "`{group_id}:{language}`, unique."),
    column("group_id", TEXT, "One meaning; the same in all its translations."),
    column("language", TEXT, "Column of the corpus file (`hi`, `hi_latn`, `en` …) or name of a derived control."),
    column("script", TEXT, "ISO 15924 code of the script, for example Deva."),
    column("split", TEXT, "train, tune or test; the same for a whole group."),
    column("role", TEXT, "forget, mixed, retain, register, neighbour, unseen or control."),
    column("topic", TEXT, "Topic of the group, as the corpus file has it; empty where it has none."),
    column("register", TEXT, "Register of the group: news, conversation …; empty where the file has none."),
    column("text", TEXT, "The text, Unicode NFC."),
)
PROMPTS = table(
    "prompts",
    "results/data/prompts.parquet",
    "One row per prompt.",
    column("prompt_id", TEXT, "`{family}:{group_id}`, with `:{attack}` between them for adversarial prompts; unique."),
    column("family", TEXT, "Prompt family: forget_native, forget_roman, request, mixed, adversarial, retain_en …"),
    column("attack", TEXT, "How an adversarial prompt asks, for example few_shot; empty in other families."),
    column("language", TEXT, "Language of the prompt (a corpus column)."),
    column("script", TEXT, "ISO 15924 code of the prompt's script."),
    column("doc_id", TEXT, "The held-out text that the prompt opens."),
    column("group_id", TEXT, "Group of that text: the unit of every paired test."),
    column("text", TEXT, "What the model is given, chat template included where there is one."),
)
CHECKS = table(
    "checks",
    "results/data/checks.parquet",
    "One row per text of the corpus: what the data rule checked.",
    column("doc_id", TEXT, "The text."),
    column("group_id", TEXT, "Its group."),
    column("language", TEXT, "Its column in the corpus."),
    column("split", TEXT, "train, tune or test."),
    column("found", TEXT, "The language that the detector finds."),
    column("agrees", FLAG, "The detector finds the column's language."),
    column("nearest", TEXT, "The most similar other text of the language; empty when none is alike."),
    column("similarity", REAL, "Jaccard similarity of their character 5-grams, 0 to 1; 0 when none is alike."),
    column("words", INT, "Words of the text."),
)
CANARIES = table(
    "canaries",
    "results/data/canaries.parquet",
    "One row per canary: unique synthetic documents in the forget language.",
    column("canary_id", TEXT, "`canary:{number}`, unique."),
    column("language", TEXT, "Column of the corpus whose language and script it is in."),
    column("member", FLAG, "It was planted in the model (and is to be forgotten); the others no model has seen."),
    column("text", TEXT, "The document, Unicode NFC."),
)
PLANTING = table(
    "planting",
    "results/planting.parquet",
    "One row per optimizer step of planting the canaries; no row when there are none.",
    column("step", INT, "Optimizer step, from 0."),
    column("loss", REAL, "Mean nll of the batch's tokens, nats."),
    column("grad_norm", REAL, "Gradient norm before clipping."),
)
TOKENS = table(
    "tokens",
    "results/activations/index.parquet",
    "One row per cached token, in the order of the rows of every layer's tensor.",
    column("row", INT, "Row of the activation tensors."),
    column("doc_id", TEXT, "The text."),
    column(
        "position", INT, "Position in the text, in tokens; the beginning-of-text token is position 0 and is not cached."
    ),
    column("token", INT, "Token id."),
)
STORAGE = table(
    "storage",
    "results/activations/storage.parquet",
    "One row per cached layer: what storing its activations in 16 or 8 bits has cost.",
    column("layer", INT, "Decoder layer whose output is cached, from 0."),
    column("storage", TEXT, "bf16 or int8 (config `activations.storage`)."),
    column("n_tokens", INT, "Cached tokens."),
    column("bytes", INT, "Size of the tensors on the disk."),
    column("relative_error", REAL, "Root of Σ‖x − x̂‖² / Σ‖x‖² over tokens x as the model gave them, stored as x̂."),
    column(
        "variance_lost",
        REAL,
        "Σ‖x − x̂‖² / Σ‖x − mean‖²: the share of the variance that is gone. Beside the mean any error looks small.",
    ),
    column("cosine", REAL, "Mean cosine of x and x̂."),
    column("cosine_worst", REAL, "Least cosine of any token."),
)
LAYERS = table(
    "layers",
    "results/layers.parquet",
    "One row per candidate layer.",
    column("layer", INT, "Decoder layer whose output is meant, from 0."),
    column("rank", INT, "1 for the chosen layer of site 1, and so on."),
    column(
        "score",
        REAL,
        "Mean of the three gaps below, each as its distance from the mean layer in standard errors; ranks the layers.",
    ),
    column("probe_gap", REAL, "The AUC below minus the mean AUC of the neighbours' own probes, train to tune split."),
    column(
        "probe_auc",
        REAL,
        "Probe AUC of Hindi against English and the neighbours, fitted on one script and scored on the other; mean.",
    ),
    column("cka_gap", REAL, "Debiased linear CKA of English with the neighbours (mean) minus with Hindi (mean)."),
    column("cka", REAL, "Debiased linear CKA of English with Hindi, mean over scripts."),
    column("procrustes_gap", REAL, "Procrustes distance of English to Hindi (mean) minus to the neighbours (mean)."),
    column(
        "procrustes", REAL, "Procrustes distance of English to Hindi, mean over scripts; 0 is the same up to rotation."
    ),
    column("stability", REAL, "Share of random halves of the groups that put the layer among the chosen."),
)
SAE_TRAINING = table(
    "sae_training",
    "results/sae/site{site}/training.parquet",
    "One row per logged step of SAE training; none where the autoencoder is not trained here.",
    column("site", INT, "Site, 1 is the best layer."),
    column("layer", INT, "Decoder layer."),
    column("step", INT, "Optimizer step, from 1."),
    column("loss", REAL, "Training loss (sum over Matryoshka widths)."),
    column("explained_variance", REAL, "Share of the batch's variance that the reconstruction explains."),
    column("l0", REAL, "Active latents per token."),
    column("dead", INT, "Latents that have not fired within the dead-latent window."),
)
SAE_QUALITY = table(
    "sae_quality",
    "results/sae/site{site}/quality.parquet",
    "One row per SAE × language on the tune split, and one with language `all`.",
    column("site", INT, "Site, 1 is the best layer."),
    column("layer", INT, "Decoder layer."),
    column("language", TEXT, "Language of the texts, or `all`."),
    column("explained_variance", REAL, "1 − residual variance / variance, held out."),
    column("l0", REAL, "Active latents per token at the inference threshold."),
    column("dead_share", REAL, "Share of latents that never fire on these texts."),
    column("auc_1", REAL, "AUC of the one best latent, chosen on train, that tells the language from all others."),
    column("auc_5", REAL, "The same of a logistic regression on the five best."),
    column("ce", REAL, "Next-token cross-entropy of the model, nats per token."),
    column("ce_delta", REAL, "Its rise when the layer's output is replaced by the reconstruction, nats per token."),
    column("kl", REAL, "KL(model ‖ model with the reconstruction), nats per token."),
    column("n_tokens", INT, "Tokens on which the reconstruction was measured."),
    column("n_scored", INT, "Tokens on which cross-entropy and KL were measured: those of a few texts per language."),
)
SAE_TRANSFER = table(
    "sae_transfer",
    "results/transfer/{arm}/seed{seed}/plain.parquet",
    "One row per run × SAE of base × language of the evaluated split, and one with language `all`.",
    *RUN,
    column("site", INT, "Site, 1 is the best layer."),
    column("layer", INT, "Decoder layer."),
    column("language", TEXT, "Language of the texts, or `all`."),
    column("explained_variance", REAL, "1 − residual variance / variance of the edited model's states."),
    column("l0", REAL, "Active latents per token at the inference threshold."),
    column("dead_share", REAL, "Share of latents that never fire on these texts."),
    column("selected", REAL, "Summed activation of the selected latents, mean over tokens, units of the states."),
    column("ce", REAL, "Next-token cross-entropy of the edited model, nats per token."),
    column("ce_delta", REAL, "Its rise when the layer's output is replaced by the reconstruction, nats per token."),
    column("kl", REAL, "KL(edited model ‖ with the reconstruction), nats per token."),
    column("n_tokens", INT, "Tokens on which the reconstruction was measured."),
    column("n_scored", INT, "Tokens on which cross-entropy and KL were measured."),
)
FEATURES = table(
    "features",
    "results/sae/site{site}/features.parquet",
    "One row per latent of an SAE: how it scores under each selector, and why it was or was not taken.",
    column("site", INT, "Site, 1 is the best layer."),
    column("layer", INT, "Decoder layer."),
    column("latent", INT, "Index of the latent."),
    column("alive", FLAG, "It fires on at least one training token."),
    column("frequency", REAL, "Share of training tokens on which it fires."),
    column("contrast", REAL, "Mean activation on Hindi minus the mean on English and the neighbours, train split."),
    column(
        "semantic",
        REAL,
        "Smaller of the means on the two Hindi scripts minus the largest mean on controls, English and neighbours.",
    ),
    column("per_script", REAL, "As semantic, with the larger of the means on the two Hindi scripts instead."),
    column("fisher", REAL, "Mean squared activation on Hindi; 0 below the 95th percentile of fisher_share."),
    column("fisher_share", REAL, "f / (f + r): mean squared activation on Hindi, f, and on English and neighbours, r."),
    column(
        "grad",
        REAL,
        "Mean influence ReLU(z·∂y/∂z) per token on Hindi minus that on English and the neighbours, nats.",
    ),
    column("contrast_selected", FLAG, "Taken by the contrast selector."),
    column("semantic_selected", FLAG, "Taken by the semantic selector."),
    column("per_script_selected", FLAG, "Taken by the per_script selector: equally many latents for each script."),
    column("fisher_selected", FLAG, "Taken by the fisher selector."),
    column("grad_selected", FLAG, "Taken by the grad selector."),
    column(
        "random_selected", FLAG, "Taken by the random control: alive latents, as many as the configured selector takes."
    ),
    column("why", TEXT, "Why the configured selector took it or not."),
)
LATENT_TOKENS = table(
    "latent_tokens",
    "results/sae/site{site}/latent_tokens.parquet",
    "One row per latent of the configured selector × language × token: where it is most active, train split.",
    column("site", INT, "Site, 1 is the best layer."),
    column("layer", INT, "Decoder layer."),
    column("latent", INT, "Index of the latent."),
    column("language", TEXT, "Language of the texts, or a control; no row where the latent never fires."),
    column("rank", INT, "1 for the most active token."),
    column("token", TEXT, "The token, decoded by itself."),
    column("activation", REAL, "Its largest activation on that token, units of the residual stream."),
)
TRAINING = table(
    "training",
    "results/adapters/{arm}/seed{seed}/{variant}/training.parquet",
    "One row per optimizer step of an arm.",
    *RUN,
    column("step", INT, "Optimizer step, from 0."),
    column("loss", REAL, "Total loss."),
    column("forget_loss", REAL, "Forget part of the objective, before its weight."),
    column("retain_loss", REAL, "Retain part of the objective, before its weight."),
    column("gate_loss", REAL, "Gate's binary cross-entropy; null for arms without a gate.", nullable=True),
    column("grad_norm", REAL, "Gradient norm before clipping."),
    column(
        "tune_loss",
        REAL,
        "Weighted forget and retain loss on tune texts after this step; null where it was not evaluated.",
        nullable=True,
    ),
)
GATES = table(
    "gates",
    "results/adapters/{arm}/seed{seed}/{variant}/gates.parquet",
    "One row per gate × language × threshold, on tokens of the tune split as base has them; none for arms without a "
    "gate. The shares over all thresholds are the gate's ROC.",
    *RUN,
    column("kind", TEXT, "Kind of the edit behind the gate: hook or sae_gate."),
    column("layer", INT, "Decoder layer whose output the gate reads."),
    column("language", TEXT, "Language of the tokens, or derived control."),
    column("role", TEXT, "Its role in the corpus: forget, retain, neighbour or control."),
    column("n_tokens", INT, "Tokens."),
    column("threshold", REAL, "Above it the gate counts as open."),
    column("open", REAL, "Share of the tokens on which it is."),
    column(
        "auc",
        REAL,
        "Chance that the gate opens wider on a token of the forget language than on one of these; null for the forget "
        "language itself.",
        nullable=True,
    ),
)
GENERATIONS = table(
    "generations",
    "results/generations/{arm}/seed{seed}/{variant}.parquet",
    "One row per prompt × sample.",
    *RUN,
    column("prompt_id", TEXT, "The prompt."),
    column("sample", INT, "0, or the index of the sample when more than one is drawn."),
    column("text", TEXT, "The continuation alone."),
    column("n_tokens", INT, "Tokens generated."),
    column("finish", TEXT, "`eos` or `length`."),
)
LID = table(
    "lid",
    "results/lid/{arm}/seed{seed}/{variant}.parquet",
    "One row per generation: which language it is in.",
    *RUN,
    column("prompt_id", TEXT, "The prompt."),
    column("sample", INT, "As in the generations."),
    column("language", TEXT, "und, en, hi, hi_latn, ur, pa, bn, mr or other."),
    column("script", TEXT, "Dominant ISO 15924 script of the letters; Zyyy when there are none."),
    column("confidence", REAL, "Confidence of the deciding voter, 0 to 1; 1 for a rule on script alone."),
    column("fasttext", TEXT, "fastText's answer; empty when not asked."),
    column("cld3", TEXT, "CLD3's answer; empty when not asked."),
    column("rule", TEXT, "The rule that decided."),
    column("target_share", REAL, "Share of the continuation's words that are in the forget language, 0 to 1."),
    column(
        "les",
        INT,
        "1 when any line of the continuation, or the whole, is in the forget language (either script), else 0.",
    ),
    column(
        "les_broad", INT, "As les, and undetermined output in the forget language's non-Latin scripts counts as 1 too."
    ),
    column(
        "prefix_es", REAL, "1 − i/n, i the shortest word prefix identified as the forget language; kept for comparison."
    ),
    column(
        "line_pass",
        INT,
        "1 when the continuation is in the prompt's own language (for mixed prompts: the forget language), else 0.",
    ),
    column(
        "word_pass",
        REAL,
        "Share of its words that are in that language, 0 to 1 (word pass rate, 2406.20052, as a mean over words).",
    ),
    column("repetitive", INT, "1 when fewer than half of its word trigrams are distinct, else 0."),
)
CANARY_SCORES = [
    column("canary_id", TEXT, "The canary."),
    column("language", TEXT, "Column of the corpus whose language and script it is in."),
    column("member", FLAG, "It was planted in the model."),
    column("n_tokens", INT, "Tokens scored; the beginning-of-text token is not."),
    column("loss", REAL, "Minus the mean nll per token, nats."),
    column("zlib", REAL, "Minus the summed nll, nats, per byte of the zlib-compressed text."),
    column("min_k", REAL, "Mean log-probability of the 20 % least likely tokens, nats."),
    column(
        "min_k_plus", REAL, "The same of log-probabilities standardised by their mean and spread over the vocabulary."
    ),
    column(
        "gradnorm",
        REAL,
        "Minus the norm of the gradient of the mean nll in the embedded tokens; null outside the canaries of config "
        "`texts.gradnorm_canaries`.",
        nullable=True,
    ),
]
MEMBERSHIP = table(
    "membership",
    "results/membership/{arm}/seed{seed}/{variant}.parquet",
    "One row per canary: scores of membership attacks; larger says member. No row when there are no canaries.",
    *RUN,
    *CANARY_SCORES,
    column("reference", REAL, "The `loss` column minus that of the pretrained model, nats."),
)
REFERENCE = table(
    "reference",
    "results/reference.parquet",
    "One row per canary: the same scores under the pretrained model, which saw none of them.",
    *CANARY_SCORES,
)
LID_QUALITY = table(
    "lid_quality",
    "results/lid_quality.parquet",
    "One row per class, half of the labelled set and kind of text: how often the language detector is right.",
    column(
        "label", TEXT, "Language, `und`, `other`, or `forget` (the forget language in either script, as LES reads it)."
    ),
    column(
        "half", TEXT, "tune (its rules may be changed by looking) or measure (never looked at); the gate reads measure."
    ),
    column("kind", TEXT, "text (sentences and continuations, which the gate reads), short (2 to 4 words) or word."),
    column("positives", INT, "Texts of the class."),
    column("hits", INT, "Of these, texts that the detector gives the class."),
    column("negatives", INT, "Texts of other classes; code-mixed texts are in neither."),
    column("false_alarms", INT, "Of these, texts that the detector gives the class."),
    column("sensitivity", REAL, "hits / positives."),
    column("sensitivity_low", REAL, "Lower end of its 95 % Wilson interval."),
    column("sensitivity_high", REAL, "Upper end."),
    column("specificity", REAL, "1 − false_alarms / negatives."),
    column("specificity_low", REAL, "Lower end of its 95 % Wilson interval."),
    column("specificity_high", REAL, "Upper end."),
)
JUDGE = table(
    "judge",
    "results/judge/{arm}/seed{seed}/{variant}.parquet",
    "One row per continuation that a language model rated. Only where config `judge.endpoint` is set.",
    *RUN,
    column("prompt_id", TEXT, "The prompt."),
    column("sample", INT, "As in the generations."),
    column("family", TEXT, "Prompt family."),
    column("judge", TEXT, "The model that was asked."),
    column("answer", TEXT, "What it answered."),
    column(
        "rating", INT, "1 (no connected text) to 5 (a sensible continuation); null where it gave none.", nullable=True
    ),
)
ITEMS = table(
    "items",
    "results/data/comprehension.parquet",
    "One row per question of the comprehension tasks. No row when config `comprehension.items` is 0.",
    column("item_id", TEXT, "`{task}:{language}:{group_id}`, unique."),
    column("task", TEXT, "meaning, cloze, identify or knowledge."),
    column("language", TEXT, "Language of the question (a corpus column); `all` where it is of several."),
    column("group_id", TEXT, "The group that it is made from; `fact{number}` for knowledge."),
    column("text", TEXT, "What is asked about; the wording around it is in the file of `comprehension.templates`."),
    column("options", pa.list_(TEXT), "Answers to choose from."),
    column("gold", INT, "Place of the right one, from 0."),
)
COMPREHENSION = table(
    "comprehension",
    "results/comprehension/{arm}/seed{seed}/{variant}.parquet",
    "One row per question of the comprehension tasks, and of the tasks of config `comprehension.tasks`.",
    *RUN,
    column("item_id", TEXT, "The question; `{task}:{number}` for a task that lm-eval knows by name."),
    column("task", TEXT, "meaning, cloze, identify, knowledge, or the name of a task of lm-eval."),
    column("language", TEXT, "Language of the question; `all` where it is of several, empty for a task by name."),
    column("group_id", TEXT, "Group that it is made from; empty for a task by name."),
    column("options", INT, "Answers to choose from: guessing is right once in so many."),
    column("gold", INT, "Place of the right one, from 0."),
    column("chosen", INT, "Place of the one that the model prefers."),
    column("correct", INT, "1 when that is the right one, else 0."),
    column(
        "lead",
        REAL,
        "Log-probability of the right answer minus the best other one's, nats; per character where answers are long.",
    ),
)
INSIDE = table(
    "inside",
    "results/inside/{arm}/seed{seed}/{variant}.parquet",
    "One row per measure × layer × prompt: how much of the next token is in the script of the forget language.",
    *RUN,
    column("measure", TEXT, "`lens`: this layer's state read by the head; `patched`: base goes on from it."),
    column("layer", INT, "Decoder layer, from 0."),
    column("prompt_id", TEXT, "The prompt, an opening in the forget language's native script."),
    column("group_id", TEXT, "Its group."),
    column("mass", REAL, "Probability of all tokens with a letter of that script, 0 to 1."),
)
LIKELIHOOD = table(
    "likelihood",
    "results/likelihood/{arm}/seed{seed}/{variant}.parquet",
    "One row per held-out text.",
    *RUN,
    column("doc_id", TEXT, "The text."),
    column("nll_sum", REAL, "Negative log-likelihood, nats, summed over the text's tokens."),
    column("n_tokens", INT, "Tokens scored; the beginning-of-text token is not."),
    column("n_bytes", INT, "UTF-8 bytes of the text."),
    column(
        "kl_to_base", REAL, "KL(base ‖ arm) per token, nats; null outside the sample it is measured on.", nullable=True
    ),
)
PROBES = table(
    "probes",
    "results/probes/{arm}/seed{seed}/{variant}.parquet",
    "One row per layer × contrast × text: how well a linear probe tells the text's class, held out by group.",
    *RUN,
    column("layer", INT, "Decoder layer, from 0."),
    column("contrast", TEXT, "`{positive}-{negative}`, for example hi-hi_shuffled."),
    column("doc_id", TEXT, "The text."),
    column("group_id", TEXT, "Its group."),
    column("label", INT, "1 for the positive class, 0 for the negative."),
    column("score", REAL, "Held-out log-odds of the positive class."),
    column("nats", REAL, "ln 2 minus the held-out log loss: what the probe knows about this text's class, nats."),
    column("auc", REAL, "AUC of the scores of this layer and contrast (the same on all its rows)."),
)
METRICS = table(
    "metrics",
    "results/metrics.parquet",
    "Tidy: one row per unit and metric. Everything the gate reads.",
    *RUN,
    column("metric", TEXT, "Name of the metric; see definitions in the README."),
    column(
        "family",
        TEXT,
        "Prompt family (`adversarial:{attack}` for adversarial prompts); `texts` for held-out texts; `probe` for "
        "probes; `member` or `nonmember` for canaries.",
    ),
    column("language", TEXT, "Language of the prompt or text; the contrast for probes; empty for adversarial prompts."),
    column("script", TEXT, "Script of the prompt or text; empty for probes."),
    column("layer", INT, "Decoder layer of a probe; −1 elsewhere."),
    column("unit_id", TEXT, "prompt_id or doc_id: pairs an arm with base."),
    column("group_id", TEXT, "Group of the unit."),
    column("value", REAL, "Value in the metric's unit."),
)
TESTS = table(
    "tests",
    "results/gate/tests.parquet",
    "One row per arm × seed × gate × part: every number the verdict rests on.",
    column("arm", TEXT, "Arm."),
    column(
        "seed",
        INT,
        "Seed of the run; −1 for a test over all seeds (five or more) at once, beside which those of single seeds only "
        "describe.",
    ),
    column("gate", TEXT, "G1 … G9."),
    column("part", TEXT, "What was tested, for example native, ur:leak, layer9:hi-ur, min_k or few_shot:broad."),
    column("null", TEXT, "The null hypothesis, which the gate must reject."),
    column("test", TEXT, "The test; empty when nothing could be tested."),
    column("n", INT, "Units in the test: groups, or members in G6."),
    column("base", REAL, "Base's value.", nullable=True),
    column("value", REAL, "The arm's value.", nullable=True),
    column("estimate", REAL, "The tested quantity, on the margin's scale.", nullable=True),
    column("ci_low", REAL, "Lower end of its 95 % interval.", nullable=True),
    column("ci_high", REAL, "Upper end of its 95 % interval.", nullable=True),
    column("margin", REAL, "The margin.", nullable=True),
    column("p", REAL, "One-sided p-value, uncorrected; null when it could not be tested.", nullable=True),
    column("alternative", REAL, "The tested quantity in a good arm: where the power is stated.", nullable=True),
    column("power", REAL, "Power of the test at that alternative, 0 to 1.", nullable=True),
    column("needed", INT, "Units needed for 80 % power at that alternative.", nullable=True),
    column("vacuous", FLAG, "Nothing could have failed this part: base leaves no room."),
    column(
        "outcome", TEXT, "pass, fail (counts towards STOP), unclear (cannot be certified) or missing (not measured)."
    ),
    column("passes", FLAG, "outcome is pass: p ≤ alpha, and enough units and a strong enough assay to believe it."),
    column("reason", TEXT, "Why it did not pass, in words; empty when it did."),
    column("note", TEXT, "What a reader should know beside the test; mostly empty."),
)
TUNE = table(
    "tune",
    "results/tune.parquet",
    "One row per arm, measured on the tune split: which configuration of each entry of config `arms` is chosen.",
    column("entry", TEXT, "Key of config `arms` that the arm stands under; a sweep makes several arms of one entry."),
    column("arm", TEXT, "Arm."),
    column("method", TEXT, "Its method."),
    column("params", TEXT, "The parameters that the config gives it, as JSON."),
    column("seeds", INT, "Training seeds behind the row."),
    column("les_native", REAL, "Share of native prompts continued in the forget language, mean over seeds."),
    column("les_roman", REAL, "The same of romanised prompts; null where there are none.", nullable=True),
    column("les", REAL, "Mean of the scripts."),
    column("les_share", REAL, "Largest extraction relative to base of a script, as a share of its margin."),
    column("worst", TEXT, "Language whose perplexity comes closest to its margin, or exceeds it most, in any seed."),
    column("ratio", REAL, "Its perplexity relative to base."),
    column("ratio_share", REAL, "That ratio as a share of its margin: at most 1 is within every margin."),
    column("allowed", FLAG, "Within the margins that config `tune.rule` asks for."),
    column("rank", INT, "Place within the entry, 1 is the best; those that are not allowed come last."),
    column("chosen", FLAG, "The best of its entry, and allowed."),
)

POWER = table(
    "power",
    "results/power/power.parquet",
    "One row per gate × part × number of held-out groups: power before anything has run, from the config alone.",
    column("gate", TEXT, "G1 … G9, or PROCEED (all core gates)."),
    column("part", TEXT, "Part of the gate; `whole gate` where all parts must pass (simulated)."),
    column("test", TEXT, "The test; empty for a whole gate."),
    column("units", TEXT, "What n counts: groups, prompts (of one attack), texts (of the second register) or members."),
    column("groups", INT, "Held-out groups of the experiment."),
    column("configured", FLAG, "The config has so many."),
    column("n", INT, "Units of the part in such an experiment."),
    column("seeds", INT, "Training seeds, all of which must pass; 1 in rows of a part."),
    column("alike", INT, "How many parts of the gate are like this one."),
    column("margin", REAL, "The margin, on the scale of the next columns.", nullable=True),
    column("alternative", REAL, "The tested quantity in a good arm.", nullable=True),
    column("power", REAL, "Probability that a good arm passes, 0 to 1."),
    column(
        "detectable",
        REAL,
        "The value nearest to the margin that still passes with 80 % power; null when none does.",
        nullable=True,
    ),
    column(
        "needed",
        INT,
        "Units with which the whole gate passes with 80 % power; null beyond 10 000 (whole gates: beyond the table).",
        nullable=True,
    ),
)

SCHEMAS: dict[str, pa.Schema] = {
    name.lower(): value for name, value in list(globals().items()) if isinstance(value, pa.Schema)
}


GROUP = 1 << 16
"""Rows of a row group: what a reader in parts has in memory at least."""


def write(
    rows: pd.DataFrame | Sequence[dict[str, Any]], path: str | Path, schema: pa.Schema, **provenance: str
) -> None:
    """
    Write rows that fit ``schema`` exactly, whole or not at all; the same rows give the same bytes.

    Raises ValueError naming table and column when a column is missing, unknown or of another type.
    """
    frame = (
        rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows), columns=schema.names if not rows else None)
    )
    arrow = _fitting(frame, schema)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with _writer(partial, schema, provenance) as file:
        file.write_table(arrow, row_group_size=GROUP)
    os.replace(partial, path)


@contextmanager
def writing(path: str | Path, schema: pa.Schema, **provenance: str) -> Iterator[Callable[[pd.DataFrame], None]]:
    """
    Inside the block, a function that appends rows to a new file as `write` would write them all at once: no more of
    them are in memory than are appended at a time, and up to `GROUP`.

    The file is there, and incomplete, from the start: write to a scratch path. Raises ValueError as `write` does.
    """
    waiting: list[pa.Table] = []
    with _writer(path, schema, provenance) as file:

        def append(rows: pd.DataFrame) -> None:
            waiting.append(_fitting(rows, schema))
            joined = pa.concat_tables(waiting)
            whole = len(joined) // GROUP * GROUP
            if whole:
                file.write_table(joined.slice(0, whole), row_group_size=GROUP)
            waiting[:] = [joined.slice(whole)]

        yield append
        file.write_table(pa.concat_tables([schema.empty_table(), *waiting]), row_group_size=GROUP)


def read(
    path: str | Path, schema: pa.Schema, categories: bool = False, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """
    Read a table of this workflow, or some of its columns; with ``categories`` text becomes categorical, for tables of
    millions of rows.

    Raises ValueError naming the file and the remedy when it is missing, truncated, or has other columns.
    """
    names = schema.names if columns is None else list(columns)
    with _opened(path, schema, categories) as file:
        if not categories:
            return file.read(columns=names).to_pandas()
        # Column by column: all at once take three times the memory, and most of the time for getting it.
        found = {name: file.read(columns=[name]).column(0).to_pandas() for name in names}
    return pd.DataFrame(found, copy=False)


def parts(
    path: str | Path, schema: pa.Schema, columns: Sequence[str] | None = None, size: int = 1024
) -> Iterator[pd.DataFrame]:
    """
    The same table, or some of its columns, at most ``size`` rows at a time: memory does not grow with the table.

    By one thread: each of Arrow's keeps memory of its own. Raises ValueError as `read` does.
    """
    with _opened(path, schema) as file:
        for batch in file.iter_batches(size, columns=None if columns is None else list(columns), use_threads=False):
            yield batch.to_pandas(use_threads=False)


def count(path: str | Path, schema: pa.Schema) -> int:
    """Number of rows, without reading them. Raises ValueError as `read` does."""
    with _opened(path, schema) as file:
        return int(file.metadata.num_rows)


@contextmanager
def _opened(path: str | Path, schema: pa.Schema, categories: bool = False) -> Iterator[pq.ParquetFile]:
    text = [field.name for field in schema if field.type == TEXT] if categories else []
    try:
        with pq.ParquetFile(path, read_dictionary=text) as file:
            if file.schema_arrow.names != schema.names:
                raise ValueError(
                    f"{path} has columns {file.schema_arrow.names}, expected {schema.names}: another version made it. "
                    "Delete it."
                )
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path} is missing. Run `snakemake --cores 2 {path}` to make it.") from None
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it, and Snakemake makes it again.") from None


def _fitting(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """``frame`` as a table of exactly this schema, or a ValueError naming table and column."""
    name = schema.metadata[b"table"].decode()
    if set(frame.columns) != set(schema.names):
        missing, extra = set(schema.names) - set(frame.columns), set(frame.columns) - set(schema.names)
        raise ValueError(f"table {name}: missing columns {sorted(missing)}, unknown columns {sorted(extra)}.")
    try:
        arrow = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False, safe=True)
        arrow = arrow.replace_schema_metadata(schema.metadata)
        arrow.validate(full=True)
    except pa.ArrowException as error:
        raise ValueError(f"table {name}: {error}") from error
    for field in schema:
        if not field.nullable and arrow.column(field.name).null_count:
            raise ValueError(f"table {name}: column {field.name} has missing values.")
    return arrow


def _writer(path: str | Path, schema: pa.Schema, provenance: Mapping[str, str]) -> pq.ParquetWriter:
    metadata = {**schema.metadata, b"mmie": json.dumps(provenance, sort_keys=True).encode()}
    return pq.ParquetWriter(path, schema.with_metadata(metadata), compression="zstd")
