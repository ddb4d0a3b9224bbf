"""Records of several sources: which split each belongs to, and what splits have in common."""

from collections.abc import Iterator
from itertools import chain, islice

from lit_llm.data.conversation_set import Prepared, first_question
from lit_llm.data.named_sources import NamedSource, listed
from lit_llm.data.records import Record, read_records
from lit_llm.data.sources import Reading
from lit_llm.data.split_sources import SplitSources


def records_of(sources: SplitSources, reading: Reading, origins: dict[str, tuple[str, int]]) -> Iterator[Record]:
    """The records of all sources, one source after the other.

    Args:
        sources: Those of each split.
        reading: How they are read, where a source does not say otherwise.
        origins: Filled with the split and the number of the source of each record, if there are several sources.
    """
    if len(sources.train) == 1 and not sources.own:
        yield from _read(sources.train[0], reading)
        return
    for split, named in {"train": sources.train, **sources.own}.items():
        for number, source in enumerate(named):
            for record in _read(source, reading):
                origins[record.name] = (split, number)
                yield record


def _read(source: NamedSource, reading: Reading) -> Iterator[Record]:
    how = source.reading(reading)
    records = chain.from_iterable(read_records(part, how) for part in source.parts)
    for record in islice(records, how.max_documents):
        # A data set of the hub has rows of one number in each of its splits.
        yield (
            record._replace(name=record.name.replace(source.path, str(source), 1)) if "split" in source.how else record
        )


def refuse_empty(sources: SplitSources, prepared: Prepared) -> None:
    """Refuse a source of a split that gives nothing.

    Raises:
        ValueError: If there is one, or nothing is left to train on.
    """
    for split, named in sources.own.items():
        if not prepared.talks[split]:
            raise ValueError(
                f"--data.{split}_source must hold records that can be used, got '{listed(named)}', which has none"
            )
    if sources.own and not prepared.talks["train"]:
        raise ValueError(f"'{sources}' holds no record that can be trained on")


def shared_questions(sources: SplitSources, prepared: Prepared) -> Iterator[str]:
    """Lines of a report: how many records of splits with sources of their own have a first question that trains."""
    trained = {first_question(talk.messages) for talk in prepared.talks["train"]} if sources.own else set()
    for split in sources.own:
        talks = prepared.talks[split]
        if count := sum(first_question(talk.messages) in trained for talk in talks):
            yield f"{split}: {count:,} of {len(talks):,} records have a first instruction that is trained on as well"
