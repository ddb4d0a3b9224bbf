"""What a user is told of a corpus: what was left out, what looks like a mistake, and how it was split."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from lit_llm.data.marked import USUAL
from lit_llm.data.sources import Source, listed
from lit_llm.data.splits import Piece, Plan
from lit_llm.data.tokenizer import Tokenizer

FAR = 0.5  # of a share: splits of many documents that miss it by more are told


def counted(pieces: Iterable[Piece], marks: Counter[str]) -> Iterator[Piece]:
    """The pieces as they come, while marks that usually stand between documents are counted."""
    for piece in pieces:
        if "<" in piece[1] or "[EOS]" in piece[1]:
            for mark in USUAL:
                if found := piece[1].count(mark):
                    marks[mark] += found
        yield piece


def left_out(source: Source) -> str:
    """Files of folders and globs that are not read, by suffix; empty if there are none."""
    total = source.left_out.total()
    return f"{total:,} file{'s' if total > 1 else ''} left out ({listed(source.left_out)})" if total else ""


def notes(plan: Plan, sizes: Mapping[str, Mapping[str, int]], tokenizer: Tokenizer, marks: Counter[str]) -> list[str]:
    """What is to be told of a corpus that has been tokenized, a sentence each.

    Args:
        plan: How it was split.
        sizes: Of each split, `bytes` and `documents`.
        tokenizer: The tokenizer.
        marks: Marks that occur in the text.
    """
    told = [f"{plan.empty:,} documents hold no text"] if plan.empty else []
    told += list(_shares(plan, sizes))
    documents = sum(size["documents"] for size in sizes.values())
    if documents > 1 and not plan.is_single and tokenizer.end_of_text is None:
        told.append(
            "no token stands between documents, since the tokenizer has no end-of-text token that is known; name one "
            f"of its special tokens by --data.end_of_text{_special(tokenizer)}"
        )
    mark = plan.source.reading.split_at
    if mark is None and marks:
        found = ", ".join(f"'{name}' {count:,} times" for name, count in marks.most_common(3))
        told.append(
            f"the text holds {found}; if it stands between documents, --data.reading.split_at "
            f"'{marks.most_common(1)[0][0]}' divides them there"
        )
    elif mark is not None and not plan.source.marks[mark]:
        told.append(f"--data.reading.split_at {mark!r} occurs nowhere in the text")
    return told


def _shares(plan: Plan, sizes: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Shares that whole documents do not meet."""
    shares = {split: share for split, share in plan.shares.items() if share}  # others may have sources of their own
    total = sum(sizes[split]["bytes"] for split in ("train", *shares))
    for split, share in shares.items():
        found = sizes[split]["bytes"] / total
        asked = f"{split}_fraction {share:g}"
        if plan.is_cut:
            yield (
                f"whole documents cannot meet {asked}, so the text is cut by position: {found:.1%} are held out, equal "
                "documents are cut at the same place"
            )
        elif not plan.is_small and abs(found - share) > FAR * share:
            yield f"{found:.1%} of the text are held out where {asked} is asked for: documents are very unequal"


def _special(tokenizer: Tokenizer) -> str:
    names = list(tokenizer.special_ids)
    return f": {', '.join(names[:5])}" if names else ""
