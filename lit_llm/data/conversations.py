"""What the data modules of conversations share: source, template, new tokens, splits, and prompts to answer."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from lit_llm.data.base import TextDataModule
from lit_llm.data.chat_encoding import ChatEncoder
from lit_llm.data.conversation_set import Prepared, Rules
from lit_llm.data.loader import Loader, Rows, TrainLoader
from lit_llm.data.new_tokens import with_new_tokens
from lit_llm.data.prompts import ChatTemplate, source_of
from lit_llm.data.record_sources import records_of, refuse_empty, shared_questions
from lit_llm.data.records import Record
from lit_llm.data.sources import Reading
from lit_llm.data.split_sources import SplitSources
from lit_llm.data.tokenizer import Tokenizer
from lit_llm.data.weighted import Mix, train_loader

Set = TypeVar("Set", bound=Prepared)


class Question(NamedTuple):
    """A held-out prompt, as the model reads it in training, and the answer that a record gives to it.

    Args:
        prompt: The text of the prompt, with what makes the assistant answer.
        ids: The prompt as ids.
        reference: The answer of the record.
        reference_tokens: Tokens of that answer.
    """

    prompt: str
    ids: list[int]
    reference: str
    reference_tokens: int


class Conversations(TextDataModule, Generic[Set]):
    """Conversations, rendered by a chat template that travels with the tokenizer.

    Args:
        sources: Those of each split, whose files are as in `read_records`.
        tokenizer: Turns text into ids.
        template: Name of the chat template.
        batch_size: Rows a batch, on each device.
        rules: What is made of the records.
        reading: How the source is read.
        num_workers: Processes that gather batches ahead.
        new_tokens: Control tokens that the tokenizer is given.

    Raises:
        ValueError: If a size or share is out of range, or there is no such template.
    """

    def __init__(
        self,
        sources: SplitSources,
        tokenizer: Tokenizer,
        template: str,
        batch_size: int,
        rules: Rules,
        reading: Reading,
        num_workers: int,
        new_tokens: Sequence[str] = (),
    ) -> None:
        tokenizer, self._new_ids = with_new_tokens(tokenizer, new_tokens)
        super().__init__(tokenizer, rules.block_size, batch_size)
        self.sources, self.template, self.reading = sources, template, reading
        self.rules, self.num_workers = rules, num_workers
        jinja = source_of(template, tokenizer)
        ChatTemplate(jinja, template)  # no Jinja is known at once
        tokenizer.chat_template = jinja
        if tokenizer.is_fitted:
            self._end_answers(ChatTemplate.of(template, tokenizer))
        self._prepared: Set | None = None

    def _end_answers(self, template: ChatTemplate) -> None:
        """Let a generated text end where the template ends an answer, if a token stands for that."""
        tokenizer = self._tokenizer
        end = tokenizer.special_ids.get(template.end)
        if end is not None and end not in tokenizer.ends:
            tokenizer.other_ends = (*tokenizer.other_ends, end)

    @abstractmethod
    def _prepare(self, records: Iterable[Record], tokenizer: Tokenizer) -> Set:
        """What is made of the records; a tokenizer that learns from the text does so here."""

    @abstractmethod
    def _rows(self, split: str) -> Rows:
        """What the loaders serve of a split."""

    @property
    def prepared(self) -> Set:
        """The tokenized conversations; made on first use, by each process for itself."""
        if self._prepared is None:
            records = records_of(self.sources, self.reading, self.rules.origins)
            try:
                self._prepared = self._prepare(records, self._tokenizer)
            except ValueError as error:
                said, source = str(error), str(self.sources)
                raise ValueError(said if source in said or self.sources.own else f"'{source}': {said}") from error
            refuse_empty(self.sources, self._prepared)
            self._end_answers(self._prepared.template)
        return self._prepared

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; one that learns from the text has done so."""
        return self._tokenizer if self._tokenizer.is_fitted else self.prepared.tokenizer

    def split_settings(self) -> dict[str, Any]:
        """What decides which records train."""
        fields = {"fields": self.rules.fields} if self.rules.fields else {}
        return {"split_seed": self.rules.split_seed, **self.sources.settings(), **fields}

    def has(self, split: str) -> bool:
        """Whether there is a split; validation's records are those to predict."""
        return self.sources.has("val" if split == "predict" else split)

    def _about_sources(self) -> list[str]:
        """Lines of a report: sources of single splits, what of those is trained on, and weights."""
        lines = [*self.sources.lines(), *shared_questions(self.sources, self.prepared)]
        if (mix := self._mix(self._rows("train"))) is not None:
            lines.append(mix.report(list(map(str, self.sources.train)), self._rows("train").unit))
        return lines

    def _mix(self, rows: Rows) -> Mix | None:
        """How often training rows come, where sources have weights."""
        if self.sources.weights is None:
            return None
        return Mix(tuple(self._sizes(rows)), self.sources.weights, self._seed())

    def _sizes(self, rows: Rows) -> list[int]:
        """How many of the training rows are of each source; one is made of each conversation, in their order."""
        return self._trained()

    def _trained(self) -> list[int]:
        """Training conversations of each source."""
        numbers = [self.rules.origin(talk.name)[1] for talk in self.prepared.talks["train"]]
        return np.bincount(numbers, minlength=len(self.sources.train)).tolist()

    @property
    def new_ids(self) -> range:
        """Ids of tokens that the tokenizer has been given here."""
        return self._new_ids

    def prepare_data(self) -> None:
        """Prepare, once a machine before the others do, so that one downloads; and say what became of the records."""
        assert self.prepared is not None
        self.tell()

    def setup(self, stage: str) -> None:
        """Prepare, if that is not done."""
        assert self.prepared is not None

    def sample_prompts(self, count: int = 3) -> list[str]:
        """The prompts of a few conversations of the validation split that leave room for an answer.

        Without the token that begins a text, which is put before every text.
        """
        prompts: list[str] = []
        begin = self.prepared.template.tokens.get("bos_token", "") if self.tokenizer.begin_of_text is not None else ""
        for talk in self.prepared.talks["val"]:
            if len(prompts) == count:
                break
            prompt = self.prepared.template.render(talk.messages[:-1], True, talk.variables).removeprefix(begin)
            if len(self.tokenizer.encode(prompt)) <= self.block_size // 2:
                prompts.append(prompt)
        return prompts

    def sample_questions(self, count: int, longest: int) -> list[Question]:
        """The first prompts of the validation split, as the model reads them in training, with their answers.

        Args:
            count: How many.
            longest: Tokens of a prompt at most; longer ones are passed over.
        """
        template, found = self.prepared.template, list[Question]()
        encoder = ChatEncoder(self.tokenizer, template)
        for talk in self.prepared.talks["val"]:
            if len(found) == count:
                break
            asked, reference = talk.messages[:-1], talk.messages[-1]["content"]
            if reference is None:  # a tool call, which is no answer to compare with
                continue
            ids = encoder.encode(asked, True, talk.variables).ids.tolist()
            if len(ids) <= longest:
                prompt = template.render(asked, True, talk.variables)
                found.append(Question(prompt, ids, reference, len(self.tokenizer.encode(reference))))
        return found

    def make_train_loader(self) -> TrainLoader:
        """Shuffled rows."""
        rows, settings = self._rows("train"), (self.batch_size, self._seed(), *self._place(), self.num_workers)
        return train_loader(rows, self._mix(rows), *settings)

    def val_dataloader(self) -> Loader | list:
        """The validation rows, each once; nothing where none is held out."""
        return self._whole("val") if self.has("val") else []

    def test_dataloader(self) -> Loader:
        """The test rows, each once.

        Raises:
            ValueError: If none is held out.
        """
        if not self.has("test"):
            raise ValueError(
                "no record is held out for testing; set --data.test_fraction, and train with it, or --data.test_source"
            )
        return self._whole("test")

    def predict_dataloader(self) -> Loader:
        """The validation rows, each once."""
        return self._whole("val")

    def _whole(self, split: str) -> Loader:
        if not len(self._rows(split)):
            raise ValueError(
                f"none of the records of '{self.sources}' is left for {split}: all of one instruction are on one side; "
                "give more records, or hold none out"
            )
        return Loader(self._rows(split), self.batch_size, *self._place(), self.num_workers)
