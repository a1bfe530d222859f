"""Tokenizers of every class that public bases ship with, trained on a few sentences."""

from collections.abc import Callable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "the patients of the film have a severe fever since monday",
    "Aspirin 500 mg was given to the patients of the ward, and it helped.",
    "der Patient hatte Fieber; æ, ü and 発熱 are in the file",
] * 20
# As Llama 3 splits; GPT-2's own pattern, which `ByteLevel` has, with three digits at most.
LLAMA3 = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
ALPHABET = pre_tokenizers.ByteLevel.alphabet()
SPACE = "▁"


def _finished(tokenizer: Tokenizer, **frame: str) -> PreTrainedTokenizerFast:
    """With `<s>`, `</s>` and `<unk>`, which the frame's places may name."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **frame
    )


def _bpe(tokenizer: Tokenizer, alphabet: list[str] | None = None, **options: object) -> Tokenizer:
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<s>", "</s>", "<unk>"],
            show_progress=False,
            initial_alphabet=alphabet or [],
            **options,
        ),
    )
    return tokenizer


def _start(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )


def byte_level(*, prefix: bool, trim: bool) -> PreTrainedTokenizerFast:
    """GPT-2, OPT, GPT-NeoX and ModernBERT (no prefix), Falcon, RoBERTa (trimmed offsets)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    return _finished(_bpe(tokenizer, ALPHABET))


def llama3() -> PreTrainedTokenizerFast:
    """Byte-level with a pattern of its own, and a token before every text."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _bpe(tokenizer, ALPHABET)
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), _start(tokenizer)]
    )
    return _finished(tokenizer)


def gemma() -> PreTrainedTokenizerFast:
    """Spaces become marks inside the text; nothing is put before it, nothing splits it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"(?={SPACE})"), "isolated")
    _bpe(tokenizer)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    tokenizer.post_processor = _start(tokenizer)
    return _finished(tokenizer)


def llama2() -> PreTrainedTokenizerFast:
    """As Gemma's, with a mark before the text too."""
    made = gemma()
    made.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    made.backend_tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def metaspace(scheme: str, *, split: bool = True) -> PreTrainedTokenizerFast:
    """SentencePiece's unigrams: T5 and XLM-R (`always`), newer Llama and Mistral (`first`)."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split=True)
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=300,
            special_tokens=["<s>", "</s>", "<unk>"],
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split)
    tokenizer.decoder = decoders.Metaspace(SPACE, scheme, split)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return _finished(tokenizer)


def word_piece() -> PreTrainedTokenizerFast:
    """BERT, DistilBERT, ELECTRA."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(
            vocab_size=300, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False
        ),
    )
    tokenizer.post_processor = _start(tokenizer)
    return _finished(tokenizer)


def end_of_word() -> PreTrainedTokenizerFast:
    """The first GPT, CLIP, XLM: the last piece of a word carries a suffix."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return _finished(_bpe(tokenizer, end_of_word_suffix="</w>"))


def with_added_token() -> PreTrainedTokenizerFast:
    """A token of the user's own that takes the space before it, as RoBERTa's mask does."""
    made = byte_level(prefix=False, trim=True)
    made.add_tokens([AddedToken("fever", lstrip=True, single_word=True)])
    return made


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level": lambda: byte_level(prefix=False, trim=True),
    "byte-level, offsets with the space": lambda: byte_level(prefix=False, trim=False),
    "byte-level with a prefix": lambda: byte_level(prefix=True, trim=True),
    "Llama 3": llama3,
    "Gemma": gemma,
    "Llama 2": llama2,
    "metaspace always": lambda: metaspace("always"),
    "metaspace first": lambda: metaspace("first"),
    "metaspace never": lambda: metaspace("never"),
    "metaspace unsplit": lambda: metaspace("first", split=False),
    "WordPiece": word_piece,
    "end of word": end_of_word,
}
