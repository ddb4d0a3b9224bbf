"""What the data modules of conversations share: source, template, new tokens, splits, and prompts to answer."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from lit_llm.data.base import TextDataModule
from lit_llm.data.chat_encoding import ChatEncoder
from lit_llm.data.conversation_set import Prepared, Rules
from lit_llm.data.loader import Loader, Rows, TrainLoader
from lit_llm.data.new_tokens import with_new_tokens
from lit_llm.data.overfit import RepeatedBatches, repeated
from lit_llm.data.prompts import ChatTemplate, source_of
from lit_llm.data.records import Record, read_records
from lit_llm.data.sources import Reading
from lit_llm.data.splits import refuse_shares
from lit_llm.data.tokenizer import Tokenizer

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
        source: As in `read_records`.
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
        source: str,
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
        refuse_shares(rules.shares["val"], rules.shares["test"])
        self.source, self.template, self.reading = source, template, reading
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
            records = read_records(self.source, self.reading)
            try:
                self._prepared = self._prepare(records, self._tokenizer)
            except ValueError as error:
                said = str(error)
                raise ValueError(said if self.source in said else f"'{self.source}': {said}") from error
            self._end_answers(self._prepared.template)
        return self._prepared

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; one that learns from the text has done so."""
        return self._tokenizer if self._tokenizer.is_fitted else self.prepared.tokenizer

    def split_settings(self) -> dict[str, Any]:
        """What decides which records train."""
        return {"source": self.source, "split_seed": self.rules.split_seed, **self.rules.shares}

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
            prompt = self.prepared.template.render(talk.messages[:-1], add_generation_prompt=True).removeprefix(begin)
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
            ids = encoder.encode(asked, add_generation_prompt=True).ids.tolist()
            if len(ids) <= longest:
                prompt = template.render(asked, add_generation_prompt=True)
                found.append(Question(prompt, ids, reference, len(self.tokenizer.encode(reference))))
        return found

    def train_dataloader(self) -> TrainLoader | RepeatedBatches:
        """Shuffled rows."""
        place = (*self._place(), self.num_workers)
        return repeated(TrainLoader(self._rows("train"), self.batch_size, self._seed(), *place), self.trainer)

    def val_dataloader(self) -> Loader | list:
        """The validation rows, each once; nothing where none is held out."""
        return self._whole("val") if self.rules.shares["val"] else []

    def test_dataloader(self) -> Loader:
        """The test rows, each once.

        Raises:
            ValueError: If none is held out.
        """
        if not self.rules.shares["test"]:
            raise ValueError("no record is held out for testing; set --data.test_fraction, and train with it")
        return self._whole("test")

    def predict_dataloader(self) -> Loader:
        """The validation rows, each once."""
        return self._whole("val")

    def _whole(self, split: str) -> Loader:
        if not len(self._rows(split)):
            raise ValueError(
                f"none of the records of '{self.source}' is left for {split}: all of one instruction are on one side; "
                "give more records, or hold none out"
            )
        return Loader(self._rows(split), self.batch_size, *self._place(), self.num_workers)
