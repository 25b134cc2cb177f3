"""The log-probability of every answer to a question, with the question read once for all its answers."""

from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from mmie import head, stage
from mmie.batches import by_length

Question = tuple[Sequence[int], Sequence[Sequence[int]]]
"""Token ids of a question, beginning-of-text token included, and of each of its answers."""


@torch.inference_mode()
def option_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], batch_tokens: int = 512
) -> list[list[float]]:
    """
    Σ ln p(token) of each answer's tokens after its question, nats: one list per question.

    Answers share the key-value cache of their question, and only their own tokens reach the head: for four answers as
    long as the question, 5/8 of the tokens of separate passes, and half of the head. Edits attached to the model act on
    all tokens alike. Raises ValueError when a question or an answer has no token, or exceeds the model's context.
    """
    _check(model, questions)
    found: list[list[float]] = [[]] * len(questions)
    batches = by_length([len(asked) + _rest(answers) for asked, answers in questions], batch_tokens)
    for batch in stage.track(batches, len(batches), "questions, batches"):
        for i, scores in zip(batch, _scored(model, tokenizer, [questions[i] for i in batch]), strict=True):
            found[i] = scores
    return found


def _scored(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]
) -> list[list[float]]:
    decoder, pad, device = model.get_decoder(), int(tokenizer.pad_token_id), model.device
    width = max(len(asked) for asked, _ in questions)
    tokens = torch.tensor([[pad] * (width - len(asked)) + list(asked) for asked, _ in questions], device=device)
    mask = torch.tensor([[0] * (width - len(asked)) + [1] * len(asked) for asked, _ in questions], device=device)
    cache = DynamicCache(config=model.config)
    states = decoder(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[:, -1:]
    # One row per answer; where questions have fewer, the last answer stands in for those that lack.
    most = max(len(answers) for _, answers in questions)
    rows = [list(answers[min(k, len(answers) - 1)]) for _, answers in questions for k in range(most)]
    states, mask = states.repeat_interleave(most, 0), mask.repeat_interleave(most, 0)
    longest = max(map(len, rows))
    if longest > 1:
        cache.batch_repeat_interleave(most)
        inner = torch.tensor([row[:-1] + [pad] * (longest - len(row)) for row in rows], device=device)
        given = torch.tensor([[1] * (len(row) - 1) + [0] * (longest - len(row)) for row in rows], device=device)
        mask = torch.cat([mask, given], dim=1)
        later = decoder(
            input_ids=inner,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, width:],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        states = torch.cat([states, later], dim=1)
    keep = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows], device=device)
    labels = torch.tensor([token for row in rows for token in row], device=device)
    log_p = head.log_probabilities(model, states[keep], labels)
    sums = [float(part.sum()) for part in log_p.split([len(row) for row in rows])]
    return [sums[i * most : i * most + len(answers)] for i, (_, answers) in enumerate(questions)]


def _rest(answers: Sequence[Sequence[int]]) -> int:
    """Tokens that the answers' pass computes for one question, padding included."""
    return len(answers) * (max(map(len, answers), default=1) - 1)


def _check(model: PreTrainedModel, questions: Sequence[Question]) -> None:
    context = model.config.max_position_embeddings
    for asked, answers in questions:
        if not asked or not answers or not all(answers):
            raise ValueError("a question and each of its answers must have at least one token.")
        if len(asked) + max(map(len, answers)) > context:
            raise ValueError(
                f"a question and its answer have {len(asked) + max(map(len, answers))} tokens, and the model's context "
                f"is {context}. Lower config `comprehension.examples`, or shorten the texts."
            )
