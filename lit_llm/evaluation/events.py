"""The events of a run, each record of their files checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

FRAME = 16  # bytes around each record: its length, and the checksums of the length and of the content
SETTINGS = "_hparams_/session_start_info"  # the tag of the HParams page under which a run tells its settings


class Point(NamedTuple):
    """One value of a curve."""

    step: int
    value: float
    time: float  # seconds since 1970


@dataclass
class Events:
    """What a run has logged.

    Args:
        scalars: Curves by tag, in the order of writing.
        settings: Numbers among the settings that the HParams page shows.
        times: When the first and the last record were written, in seconds since 1970; empty without a record.
        damage: What of the files cannot be read, in words.
    """

    scalars: dict[str, list[Point]] = field(default_factory=dict)
    settings: dict[str, float] = field(default_factory=dict)
    times: tuple[float, ...] = ()
    damage: list[str] = field(default_factory=list)

    def last(self, tag: str) -> float | None:
        """The last value of a curve."""
        return self.scalars[tag][-1].value if tag in self.scalars else None


def read_events(folder: Path) -> Events:
    """All events of a run folder; of a damaged file, what stands before the damage.

    TensorBoard's own reader leaves the rest of such a file out without a word. Here each record is checked against its
    checksums, and the bytes that were read against the size of the file.

    Args:
        folder: The run folder.
    """
    events = Events()
    for path in sorted(folder.glob("events.out.tfevents.*")):
        if path.is_file():
            _read_file(path, events)
    return events


def _read_file(path: Path, events: Events) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub import errors
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    size = path.stat().st_size  # at the beginning: a run that goes on writes beyond it
    reader, consumed = PyRecordReader_New(str(path)), 0
    while consumed < size:
        try:
            reader.GetNext()
            event = Event.FromString(reader.record())
        except (errors.OpError, ValueError, OSError) as error:  # of the checksum, the length, the content
            broken = "is cut off in a record" if "truncated" in str(error) else "is damaged"
            events.damage.append(f"{path.name} {broken} at byte {consumed:,} of {size:,}; what stands before was read")
            return
        consumed += len(reader.record()) + FRAME
        events.times = (*events.times[:1], event.wall_time) if events.times else (event.wall_time,)
        for value in event.summary.value:
            if value.HasField("simple_value"):
                point = Point(event.step, value.simple_value, event.wall_time)
                events.scalars.setdefault(value.tag, []).append(point)
            elif value.tag == SETTINGS:
                events.settings |= _numbers(value.metadata.plugin_data.content)


def _numbers(content: bytes) -> dict[str, float]:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    values = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: value.number_value for name, value in values.items() if value.HasField("number_value")}
