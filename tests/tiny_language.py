"""Tiny random language models with tokenizers, saved as Hugging Face folders."""

from pathlib import Path

import torch

TEXT = "The cat sat on the mat. A dog ran after the cat, and then the dog sat on the mat too; the cat was not amused."
SIZE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
LONGEST = {"max_position_embeddings": 64}


def save_tokenizer(folder: Path, bert: bool = False) -> int:
    """Train a byte-level BPE tokenizer of a few dozen entries, save it, and return its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[CLS]", "[SEP]", "[PAD]", "[MASK]"] if bert else ["<bos>", "<eos>", "<pad>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if bert:
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 0), ("[SEP]", 1)])
        names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    else:
        names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def build_model(name: str, n_vocab: int, n_layers: int):
    """Return a random model of an architecture, sixteen wide."""
    import transformers as hf

    torch.manual_seed(0)
    ids = {
        "num_hidden_layers": n_layers,
        "vocab_size": n_vocab,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    grouped = {"num_key_value_heads": 1, "head_dim": 8}
    if name == "gpt2":
        config = hf.GPT2Config(n_embd=16, n_head=2, n_inner=24, n_positions=64, **ids)
        return hf.GPT2LMHeadModel(config)
    if name == "neox":
        return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**SIZE, **LONGEST, **ids))
    if name == "llama":
        return hf.LlamaForCausalLM(hf.LlamaConfig(**SIZE, **LONGEST, **ids, **grouped))
    if name == "gemma2":
        return hf.Gemma2ForCausalLM(hf.Gemma2Config(**SIZE, **LONGEST, **ids, **grouped))
    return hf.BertForMaskedLM(hf.BertConfig(**SIZE, **LONGEST, **ids))


def save_model(name: str, folder: Path, n_layers: int = 2) -> Path:
    """Save a random model with its tokenizer, its parameters spread out enough to tell the layers apart."""
    folder.mkdir(parents=True, exist_ok=True)
    model = build_model(name, save_tokenizer(folder, bert=name == "bert"), n_layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder
