"""What is told of records once, with a count: names that were found, fields that are not used, turns out of order."""

from collections import Counter
from collections.abc import Iterator, Mapping

READ, MAPPED_AWAY, UNKNOWN, UNUSED, TURNS, FLAGS, TEMPLATE = range(7)
LINES = {
    READ: "field names found: {}",
    MAPPED_AWAY: "passed over because of --data.fields: {}",
    UNKNOWN: "unknown fields, not used: {}",
    UNUSED: "fields not used: {}",
    TURNS: "turns out of order: {}",
    FLAGS: "loss flags: {}",
    TEMPLATE: "not written by the chat template: {}",
}


class Notes(Counter[tuple[int, str]]):
    """Counts by the kind of a note and what it is about."""

    def add(self, kind: int, about: str, count: int = 1) -> None:
        """Count something.

        Args:
            kind: One of this module's constants.
            about: What is named in the line of its kind.
            count: How often it was seen.
        """
        self[kind, about] += count

    def of_template(self, left_out: Mapping[str, int]) -> None:
        """Count what a chat template does not write."""
        for about, count in left_out.items():
            self.add(TEMPLATE, about, count)

    def lines(self) -> Iterator[str]:
        """A line for each kind, in which each thing has its count."""
        for kind, line in LINES.items():
            found = sorted((about, count) for (other, about), count in self.items() if other == kind and count)
            if found:
                yield line.format(", ".join(f"{about} ({count:,})" for about, count in found))
