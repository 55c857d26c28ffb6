from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sae.features.show import token_decoder

WORDS = ["[UNK]", "a", "the", "warrant", "##y", "cat", "."]
"""Word pieces as BERT has them, their spaces left out."""
LETTERS = ["<unk>", "\u2581", "a", "t", "h", "e", "c"]
"""Pieces as SentencePiece has them, a space being part of them."""


def _word_pieces() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")


def _sentence_pieces() -> PreTrainedTokenizerFast:
    merges = [
        ("\u2581", "t"),
        ("\u2581t", "h"),
        ("\u2581th", "e"),
        ("c", "a"),
        ("ca", "t"),
        ("\u2581", "cat"),
        ("\u2581", "a"),
    ]
    pieces = [*LETTERS, *("".join(pair) for pair in merges)]
    inner = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    inner.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


@pytest.mark.parametrize(
    ("make", "text", "pieces"),
    [
        (_word_pieces, "the warranty cat", [" the", " warrant", "y", " cat"]),
        (_sentence_pieces, "the cat", [" the", " cat"]),
    ],
)
def test_tokens_are_spelled_with_the_space_before_them(make, text: str, pieces: list[str]) -> None:
    tokenizer = make()
    decode = token_decoder(SimpleNamespace(tokenizer=tokenizer))
    assert [decode(token) for token in tokenizer.encode(text, add_special_tokens=False)] == pieces


def test_byte_level_tokens_add_up_to_the_text(tiny_gpt2_folder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2_folder)
    decode = token_decoder(SimpleNamespace(tokenizer=tokenizer))
    text = "The dog ran after the cat;\n  amused."
    assert "".join(decode(token) for token in tokenizer.encode(text)) == text
