from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from mmie import cache, tables, tensors
from mmie.activations import fill, index_of, tokenised
from mmie.batches import by_length
from mmie.cache import trainable
from mmie.model import load
from small_cache import LAYERS, small_corpus, write_cache
from tiny import RUNTIME


@pytest.fixture(scope="module")
def network(tiny_model):
    return load(tiny_model, RUNTIME)


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("cache"), tiny_model)


def test_the_cache_holds_what_an_unbatched_pass_gives(made, network):
    model, tokenizer = network
    index, corpus = tables.read(made["index"], tables.TOKENS), tables.read(made["corpus"], tables.CORPUS)
    states = cache.reading(made["layers"], made["index"])
    texts = corpus.set_index("doc_id")["text"]
    for doc_id, rows in index.groupby("doc_id"):
        ids = torch.tensor([tokenizer(texts[doc_id])["input_ids"]])
        hidden = model(ids, output_hidden_states=True).hidden_states
        assert rows["token"].tolist() == ids[0, 1:].tolist()
        assert rows["position"].tolist() == list(range(1, ids.shape[1]))
        for layer in LAYERS[:-1]:  # transformers replaces the last layer's output by its norm
            found = states[layer][torch.tensor(rows["row"].to_numpy())].float()
            # One part in 256 is a step of bf16.
            torch.testing.assert_close(found, hidden[layer + 1][0, 1:], rtol=2**-7, atol=1e-3)


def test_the_layout_does_not_depend_on_the_batches(made, tiny_model, tmp_path):
    other = write_cache(tmp_path, tiny_model, batch_tokens=1)
    assert Path(other["index"]).read_bytes() == Path(made["index"]).read_bytes()
    for one, two in zip(made["layers"], other["layers"], strict=True):
        one, two = (next(iter(tensors.load(path).values())) for path in (one, two))
        torch.testing.assert_close(one, two, rtol=2**-6, atol=1e-3)


def test_only_trainable_texts_are_cached_without_their_first_token(made, network):
    index = tables.read(made["index"], tables.TOKENS)
    described = cache.described(index, small_corpus())
    assert set(described["split"]) == {"train", "tune"}
    assert set(described["role"]) == {"forget", "retain", "neighbour", "control"}
    assert network[1].bos_token_id not in set(index["token"]) and index["position"].min() == 1
    assert index["row"].tolist() == list(range(len(index)))


def test_rows_follow_the_corpus(made):
    order = tables.read(made["index"], tables.TOKENS)["doc_id"]
    assert order.drop_duplicates().tolist() == trainable(small_corpus())["doc_id"].tolist()
    assert int((order != order.shift()).sum()) == order.nunique()


def test_layers_after_the_last_wanted_one_do_not_run(network):
    model, tokenizer = network
    texts = trainable(small_corpus()).head(2)
    ids = tokenised(model, tokenizer, texts)
    ran, hooks = [], model.get_decoder().layers[1]._forward_hooks
    before = list(hooks)
    handle = model.get_decoder().layers[2].register_forward_hook(lambda *_: ran.append(True))
    fill(model, 0, ids, {1: torch.zeros(sum(map(len, ids)) - 2, 64)}, 64)
    handle.remove()
    assert not ran and list(hooks) == before


def test_a_layer_that_the_model_lacks_is_named(network):
    model, tokenizer = network
    ids = tokenised(model, tokenizer, trainable(small_corpus()).head(1))
    with pytest.raises(ValueError, match=r"layers\.candidates.*layer 9.*0 to 3"):
        fill(model, 0, ids, {9: torch.zeros(99, 64)}, 64)


def test_an_empty_or_overlong_text_is_named(network):
    model, tokenizer = network
    for text in ("", "rain " * 2000):
        with pytest.raises(ValueError, match="g0:en"):
            tokenised(model, tokenizer, pd.DataFrame({"doc_id": ["g0:en"], "text": [text]}))


def test_a_cache_of_another_index_or_corpus_is_refused(made, tmp_path):
    index = tables.read(made["index"], tables.TOKENS)
    tables.write(index.iloc[:-1], tmp_path / "index.parquet", tables.TOKENS)
    with pytest.raises(ValueError, match="not made together"):
        cache.reading(made["layers"], tmp_path / "index.parquet")
    with pytest.raises(ValueError, match="another corpus"):
        cache.described(index, small_corpus().iloc[1:])


def test_batches_stay_within_their_budget():
    lengths = [5, 3, 9, 30, 4, 4]
    batches = by_length(lengths, 12)
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 12 or len(batch) == 1 for batch in batches)
    assert [len(batch) for batch in by_length([1] * 5, 12, batch_size=2)] == [2, 2, 1]


def test_index_of_counts_positions_from_the_second_token():
    rows = index_of(pd.DataFrame({"doc_id": ["a", "b"]}), [[2, 7, 8], [2, 9]])
    assert rows.to_dict("list") == {
        "row": [0, 1, 2],
        "doc_id": ["a", "a", "b"],
        "position": [1, 2, 1],
        "token": [7, 8, 9],
    }


def test_totals_sum_the_rows_of_each_code():
    states = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.bfloat16)
    assert cache.totals(states, torch.tensor([0, 2]), torch.tensor([1, 1]), 2).tolist() == [[0, 0], [6, 8]]
