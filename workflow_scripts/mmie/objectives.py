"""
What unlearning minimises: a forget loss and a retain loss, as pure functions of logits (definitions: docs,
"Objectives").

Everywhere ``logits`` are ``[token, vocabulary]`` fp32 at label positions only, ``labels`` ``[token]`` the ids to
predict, and ``rows`` ``[token]`` the sequence each token belongs to: padding never gets here. Logits of a sampled
vocabulary come with ``log_weight`` ``[vocabulary]``, the log of how many ids each column stands for.
"""

import torch
from torch.nn.functional import logsigmoid


def token_nll(logits: torch.Tensor, labels: torch.Tensor, log_weight: torch.Tensor | None = None) -> torch.Tensor:
    """Negative log-likelihood of each label, nats, ``[token]``. ``labels`` index the columns of ``logits``."""
    weighted = logits if log_weight is None else logits + log_weight
    return weighted.logsumexp(-1) - logits.gather(-1, labels[:, None])[:, 0]


def sequence_sums(values: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
    """Sum of ``values`` ``[token]`` over each of ``count`` sequences, ``[sequence]``."""
    return values.new_zeros(count).index_add(0, rows, values)


def redirect(nll: torch.Tensor) -> torch.Tensor:
    """
    Mean nll of the tokens to switch to: after an opening in the forget language, its parallel text in the retain
    language.

    ``nll`` ``[token]`` holds those tokens only. Minimising it makes the model continue in the retain language.
    """
    return nll.mean()


def graddiff(nll: torch.Tensor, ceiling: float) -> torch.Tensor:
    """
    −mean min(nll, ceiling): gradient ascent on the forget texts (the forget part of GradDiff, 2401.06121), bounded.

    A token whose nll has reached ``ceiling`` (ln of the vocabulary size is a uniform guess) pulls no further;
    unbounded, the loss goes to −∞ and the model with it.
    """
    return -nll.clamp(max=ceiling).mean()


def npo(log_prob: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """
    −(2/β) · mean log σ(−β (log π(y) − log π_ref(y))): negative preference optimisation (2404.05868, equation 3).

    ``log_prob`` and ``reference`` ``[sequence]`` are sums over each forget text under the edited and the base model.
    At the start it is (2/β) ln 2; it falls to 0 as the texts become unlikely.
    """
    return -(2 / beta) * logsigmoid(-beta * (log_prob - reference)).mean()


def simnpo(nll: torch.Tensor, lengths: torch.Tensor, beta: float, delta: float) -> torch.Tensor:
    """
    −(2/β) · mean log σ(β (nll/|y| − δ)): simple negative preference optimisation (2410.07163, equation 4, γ = β δ).

    ``nll`` ``[sequence]`` is the sum over each forget text and ``lengths`` ``[sequence]`` its number of labels |y|.
    Where npo compares with base, this compares with δ nats per token: a long text pulls no harder than a short one, and
    a text that base found unlikely pulls less from the start.
    """
    return -(2 / beta) * logsigmoid(beta * (nll / lengths - delta)).mean()


def state_distance(states: torch.Tensor, target: torch.Tensor, norm: float) -> torch.Tensor:
    """
    Mean over tokens of ‖h − target‖², in units of ``norm``²: both parts of RMU (2403.03218, section 4.1).

    ``states`` ``[token, d_model]`` after one layer. On forget texts ``target`` is `rmu_target`; on texts to keep it is
    base's states of the same tokens, ``[token, d_model]``. The mean runs over the tokens of a batch, not of each text.
    """
    return (states.float() - target.float()).square().sum(-1).mean() / norm**2


def rmu_target(d_model: int, scale: float, norm: float, seed: int) -> torch.Tensor:
    """
    c · e ``[d_model]`` fp32: e a unit vector drawn with ``seed``, c = ``scale`` · ``norm``.

    ``norm`` is the root mean square norm of base's states at that layer: an absolute c has no effect in one model and
    destroys another (2408.06223). The paper's code draws e in the positive orthant; here every direction is as likely.
    """
    e = torch.randn(d_model, generator=torch.Generator().manual_seed(seed))
    return scale * norm * e / e.norm()


def kl_to_base(base: torch.Tensor, logits: torch.Tensor, log_weight: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over tokens of KL(base ‖ edited), nats, from both models' logits ``[token, vocabulary]``."""
    if log_weight is None:
        log_weight = logits.new_zeros(logits.shape[-1])
    log_p = (base + log_weight).log_softmax(-1)
    log_q = (logits + log_weight).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()
