"""
A tiny language model of our own, for tests: a random Gemma 3 with a byte-level BPE tokenizer, made in a second.

``make_tiny_model(folder)`` writes a Hugging Face folder with the manifest that `mmie.model.load` expects. It is the same
architecture as the real default (sliding and full attention, tied head), 4 layers, d_model 64, and answers gibberish.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SAMPLE = [
    "The rain stopped before noon and the children ran out to play in the wet garden.",
    "बारिश दोपहर से पहले रुक गई और बच्चे भीगे बगीचे में खेलने निकल पड़े।",
    "baarish dopahar se pehle ruk gayi aur bachche bheege bageeche mein khelne nikal pade.",
    "بارش دوپہر سے پہلے رک گئی اور بچے بھیگے باغ میں کھیلنے نکل گئے۔",
    "ਮੀਂਹ ਦੁਪਹਿਰ ਤੋਂ ਪਹਿਲਾਂ ਰੁਕ ਗਿਆ ਅਤੇ ਬੱਚੇ ਗਿੱਲੇ ਬਾਗ਼ ਵਿੱਚ ਖੇਡਣ ਨਿਕਲ ਪਏ।",
    "দুপুরের আগেই বৃষ্টি থেমে গেল আর বাচ্চারা ভেজা বাগানে খেলতে বেরিয়ে পড়ল।",
    "दुपारच्या आधीच पाऊस थांबला आणि मुले ओल्या बागेत खेळायला बाहेर पडली.",
]
RUNTIME = {
    "device": "cpu",
    "device_map": "none",
    "dtype": "float32",
    "attention": "eager",
    "quantisation": "none",
    "trust_remote_code": False,
}


def make_tiny_model(folder: str | Path, texts: Iterable[str] = SAMPLE, context: int = 512, seed: int = 0) -> Path:
    """Write the model and return the path of its manifest.json."""
    from tokenizers import processors
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

    bpe = _byte_level(texts, ["<pad>", "<eos>", "<bos>"])
    bpe.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", padding_side="left"
    )
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=context,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return _written(Gemma3ForCausalLM, config, tokenizer, Path(folder), seed)


def make_tiny_qwen(folder: str | Path, texts: Iterable[str] = SAMPLE, context: int = 4096, seed: int = 0) -> Path:
    """
    A tiny Qwen2 as the model of the GPU experiment: a chat template with a system message of its own, and no
    beginning-of-text token.

    Returns the path of its manifest.json.
    """
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(texts, special), pad_token=special[0], eos_token=special[2], padding_side="left"
    )
    tokenizer.chat_template = (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        tie_word_embeddings=True,  # as at 1.5 B
        pad_token_id=0,
        eos_token_id=2,
        bos_token_id=None,
    )
    return _written(Qwen2ForCausalLM, config, tokenizer, Path(folder), seed)


def _byte_level(texts: Iterable[str], special: list[str]) -> Any:
    """A byte-level BPE of 1024 tokens, trained on ``texts``; ids of ``special`` come first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def _written(kind: Any, config: Any, tokenizer: Any, folder: Path, seed: int) -> Path:
    """A random model of this class, its tokenizer and its manifest, in ``folder``."""
    import torch

    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = kind(config).to(torch.bfloat16)
    torch.set_rng_state(generator_state)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files = {
        p.name: {"bytes": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()}
        for p in sorted(folder.iterdir())
        if p.name != "manifest.json"
    }
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"source": "local", "name": "tiny", "revision": None, "files": files}, indent=1))
    return manifest
