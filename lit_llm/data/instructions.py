"""Instructions and answers, and whole conversations, for training an assistant."""

from collections.abc import Iterable

from lit_llm.data.conversation_set import OnBad, OnLong, Rules
from lit_llm.data.conversations import Conversations
from lit_llm.data.field_names import refuse_fields
from lit_llm.data.instruction_set import InstructionSet, learnt_bytes_per_token, prepare
from lit_llm.data.loader import Rows
from lit_llm.data.named_sources import Sources
from lit_llm.data.ngrams import ngram_losses
from lit_llm.data.packing import Examples, PackedWindows, PaddedExamples
from lit_llm.data.records import SUFFIXES, Record
from lit_llm.data.sources import Reading
from lit_llm.data.split_sources import find_sources
from lit_llm.data.tokenizer import Tokenizer


class Instructions(Conversations[InstructionSet]):
    """Instructions and answers, or conversations of several turns, rendered by a chat template.

    The assistant's words carry loss, with the token that ends each of them. Control tokens come from the template
    alone, so a text cannot forge a turn. Records with the same first instruction are on one side of the split. Short
    examples share a window without seeing each other. The template travels with the tokenizer.

    Args:
        source: A file (.json, .json.gz, .jsonl, .jsonl.gz, .parquet), a Hugging Face data set id, or `sample` (200
            pairs that come along). A record has `instruction`, `output` and maybe `input`; or `messages` of `role` and
            `content`; or `conversations` of `from` and `value`. Or a list of them, each maybe with a weight, or a
            folder with train and val files: docs/sources.md.
        tokenizer: Turns text into ids.
        template: `alpaca`, `chatml`, `gemma`, `llama3`, `phi3`, `plain`, `zephyr`; the path of a Jinja file; or
            `source`: the template that comes along with the tokenizer.
        block_size: Length of a window in tokens.
        batch_size: Windows a batch, on each device; without packing, examples.
        val_fraction: Share of the records held out for validation, in [0, 1); does not count where there is a
            val_source.
        test_fraction: Share of the records held out for testing, in [0, 1); does not count where there is a
            test_source.
        split_seed: Chooses which records are held out, and which share a window.
        mask_prompt: Whether only the assistant's words carry loss in training; they alone do where a loss is measured.
        packing: Whether short examples share a window, each with positions of its own.
        on_long: An example that is longer than a window is cut (`truncate`: the answer that is cut has no end of text,
            which a model would learn to write too early), left out (`drop`), or an `error`.
        on_bad: A record that nothing can be learnt from (no instruction, an empty response, roles in disorder, a
            response longer than a window) is an `error`, or left out and counted (`skip`).
        reading: How the source is read.
        num_workers: Processes that gather batches ahead; 0 is fastest.
        new_tokens: Control tokens that the tokenizer is given, as the template spells them (`<|im_start|>`): each has
            the next id, and a pretrained backbone gets rows for them that start at the mean of the others. None: none.
        fields: Names of the fields of the records where they have others: `{instruction: question, output: answer}`.
            Known names (Dolly's, prompt and completion, question and answer, …) are found without it; all fields that
            are read stand in docs/records.md. None: no others.
        val_source: Records to validate on, named as a source is. None: a share of the source.
        test_source: Records to test on, named as a source is. None: a share of the source.

    Raises:
        ValueError: If a size or share is out of range, there is no such template, or `fields` gives an unknown name.
    """

    def __init__(
        self,
        source: Sources,
        tokenizer: Tokenizer,
        template: str = "alpaca",
        block_size: int = 512,
        batch_size: int = 16,
        val_fraction: float = 0.05,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        mask_prompt: bool = True,
        packing: bool = True,
        on_long: OnLong = "truncate",
        on_bad: OnBad = "error",
        reading: Reading = Reading(),  # noqa: B008 (never changed)
        num_workers: int = 0,
        new_tokens: list[str] | None = None,
        val_source: Sources | None = None,
        test_source: Sources | None = None,
        fields: dict[str, str] | None = None,
    ) -> None:
        refuse_fields(fields or {})
        own, shares = {"val": val_source, "test": test_source}, {"test": test_fraction, "val": val_fraction}
        sources = find_sources(source, own, shares, reading, SUFFIXES)
        rules = Rules(block_size, sources.shares, split_seed, mask_prompt, on_long, on_bad, fields=fields or {})
        super().__init__(sources, tokenizer, template, batch_size, rules, reading, num_workers, new_tokens or ())
        self.packing = packing
        self._served: dict[str, PackedWindows | PaddedExamples] = {}

    def _prepare(self, records: Iterable[Record], tokenizer: Tokenizer) -> InstructionSet:
        return prepare(records, tokenizer, self.template, self.rules)

    def report(self) -> str:
        """What became of the records."""
        efficiency = getattr(self._rows("train"), "efficiency", None)
        of_records = self.prepared.report(efficiency, is_shared_out=not self.sources.own)
        return "\n".join([*self._about_sources(), of_records])

    def bytes_per_token(self, split: str) -> float | None:
        """UTF-8 bytes for each token of a split that carries loss."""
        return learnt_bytes_per_token(self._examples(split), self.tokenizer)

    def reference_losses(self) -> dict[str, float]:
        """The unigram and bigram losses of the answers."""
        train, val = self._examples("train").learnt(), self._examples("val").learnt()
        losses = ngram_losses(train, val, self.vocab_size)
        return {name: loss for name, loss in losses.items() if loss is not None}

    def _examples(self, split: str) -> Examples:
        return self.prepared.examples[split]

    def _rows(self, split: str) -> PackedWindows | PaddedExamples:
        """What the loaders serve: packed or padded examples."""
        if split not in self._served:
            filler = self.tokenizer.end_of_text or 0
            # A window of two sources would have no weight.
            groups = self._trained() if split == "train" and self.sources.weights else None
            self._served[split] = (
                PackedWindows(self._examples(split), self.block_size, self.rules.split_seed, filler, groups)
                if self.packing
                else PaddedExamples(self._examples(split), filler=filler)
            )
        return self._served[split]

    def _sizes(self, rows: Rows) -> list[int]:
        return rows.sizes if isinstance(rows, PackedWindows) else super()._sizes(rows)
