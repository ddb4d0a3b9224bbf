"""Text for next-token training: sources, tokenized once, in sliding windows."""

from pathlib import Path

from lit_llm.data.base import TextDataModule
from lit_llm.data.loader import Loader, TrainLoader
from lit_llm.data.overfit import RepeatedBatches, repeated
from lit_llm.data.sources import Reading, Source
from lit_llm.data.splits import refuse_shares
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.data.tokens import Corpus, cache_folder, corpus_folder, open_corpus, prepare
from lit_llm.data.windows import Windows


class Pretraining(TextDataModule):
    """Next-token training on any text.

    The corpus is tokenized once, into a cache that later runs and all ranks share. Documents are joined by the
    end-of-text token and split as wholes; a single long text is split by position. Training windows come in an order
    that depends on the seed and the epoch alone; validation covers the whole held-out text, each token scored once.

    Args:
        source: A file (.txt .md .py .rst .jsonl .jsonl.gz .parquet), a folder, a glob, a Hugging Face data set id,
            `stdlib` (the source of Python's own standard library, which needs no download), or a list of them.
        tokenizer: Turns text into ids.
        block_size: Length of a window in tokens.
        batch_size: Windows a batch, on each device.
        stride: Tokens from the start of a training window to the start of the next. None: block_size.
        val_fraction: Share of the text held out for validation, in [0, 1).
        test_fraction: Share of the text held out for testing, in [0, 1).
        mask_documents: Whether a token is kept from attending to other documents in its window.
        reading: How the sources are read.
        cache_dir: Where token files are kept. None: LIT_LLM_CACHE, or the user's cache folder.
        num_workers: Processes that gather batches ahead; 0 is fastest unless the disk is slow.

    Raises:
        ValueError: If a size or share is out of range, or a source does not exist.
    """

    def __init__(
        self,
        source: str | list[str],
        tokenizer: Tokenizer,
        block_size: int = 256,
        batch_size: int = 32,
        stride: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        mask_documents: bool = False,
        reading: Reading = Reading(),  # noqa: B008 (never changed)
        cache_dir: str | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(tokenizer, block_size, batch_size)
        if stride is not None and stride < 1:
            raise ValueError(f"stride {stride} cannot be: it is at least 1")
        refuse_shares(val_fraction, test_fraction)
        self.source = Source(source, reading)
        self.stride, self.fractions = stride or block_size, (val_fraction, test_fraction)
        self.mask_documents, self.num_workers = mask_documents, num_workers
        if tokenizer.is_fitted:
            self._border()
        cache = Path(cache_dir).expanduser() if cache_dir else cache_folder()
        self.folder = corpus_folder(self.source, tokenizer, *self.fractions, cache)
        self._corpus: Corpus | None = None

    @property
    def corpus(self) -> Corpus:
        """The tokenized corpus; made on first use."""
        if self._corpus is None:
            self._corpus = prepare(self.source, self._tokenizer, self.folder, *self.fractions)
        return self._corpus

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; one that learns from the corpus has done so."""
        return self._tokenizer if self._tokenizer.is_fitted else self.corpus.tokenizer

    def prepare_data(self) -> None:
        """Tokenize, once a machine."""
        prepare(self.source, self._tokenizer, self.folder, *self.fractions)

    def setup(self, stage: str) -> None:
        """Open the token files."""
        self._corpus = open_corpus(self.folder)

    def bytes_per_token(self, split: str) -> float:
        """UTF-8 bytes for each token of a split."""
        return self.corpus.bytes_per_token(split)

    def reference_losses(self) -> dict[str, float]:
        """The unigram and bigram losses of the validation text."""
        names = ("unigram_loss", "bigram_loss")
        return {name: self.corpus.meta[name] for name in names if self.corpus.meta[name] is not None}

    def sample_prompts(self, count: int = 3, length: int = 16) -> list[str]:
        """A few short stretches of the validation text, which leave room for what follows them."""
        length = min(length, max(self.block_size // 2, 1))
        tokens = self.corpus.tokens("val")
        starts = range(0, max(len(tokens) - length, 0), max(len(tokens) // count, 1))
        return [self.tokenizer.decode(tokens[start : start + length].tolist()) for start in starts[:count]]

    def _border(self) -> int | None:
        """The id that ends a document, if that is to matter."""
        if self.mask_documents and self.tokenizer.end_of_text is None:
            raise ValueError("mask_documents needs a tokenizer with an end-of-text token, which marks the borders")
        return self.tokenizer.end_of_text if self.mask_documents else None

    def _windows(self, split: str) -> Windows:
        tokens, border, training = self.corpus.tokens(split), self._border(), split == "train"
        stride = self.stride if training else self.block_size
        try:
            return Windows(tokens, self.block_size, stride, self.vocab_size, border, to_the_end=not training)
        except ValueError as error:
            raise ValueError(f"{split} split of '{self.source}': {error}") from error

    def train_dataloader(self) -> TrainLoader | RepeatedBatches:
        """Shuffled windows."""
        place = (*self._place(), self.num_workers)
        return repeated(TrainLoader(self._windows("train"), self.batch_size, self._seed(), *place), self.trainer)

    def val_dataloader(self) -> Loader | list:
        """The validation text from beginning to end; nothing where none is held out."""
        return self._whole("val") if self.fractions[0] else []

    def test_dataloader(self) -> Loader:
        """The test text from beginning to end.

        Raises:
            ValueError: If none is held out.
        """
        if not self.fractions[1]:
            raise ValueError("no text is held out for testing; set --data.test_fraction, and train with it")
        return self._whole("test")

    def predict_dataloader(self) -> Loader:
        """The validation text from beginning to end."""
        return self._whole("val")

    def _whole(self, split: str) -> Loader:
        return Loader(self._windows(split), self.batch_size, *self._place(), self.num_workers)
