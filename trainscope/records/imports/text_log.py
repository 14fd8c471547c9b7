"""Text logs: names, each with its number behind it.

torchvision's and PyTorch's example scripts, timm, mmengine, Keras, Hugging Face's printed entries,
smilelogging, and lines in anybody's style, as long as they say which numbers are of a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from trainscope.records.imports.bars import BARS, COUNTS
from trainscope.records.imports.collect import EpochCollector
from trainscope.records.imports.even import Lists
from trainscope.records.imports.halves import HALVES, are_halves, points
from trainscope.records.imports.json_records import read_records
from trainscope.records.imports.log import Log, NoAccuracyError, choose_run
from trainscope.records.imports.printed import lists_in
from trainscope.records.imports.text_file import check_file, lines
from trainscope.records.imports.text_lines import DIGIT, LineReader
from trainscope.records.imports.words import read_line

MOST_BYTES = 16 * 2**20
NAMED_LAST = "The log names each epoch in a line behind its values, which were taken to be of it."


def read(path: Path, asked: Mapping[str, str], run: str | None = None) -> Log:
    """Read a text log.

    The epoch is the one that was named last. Lines that count batches are of training, unless they
    name test data; of these, the average in brackets of the last one counts, if no line sums the
    epoch up. A number without its data in its name is of the data named before it in its line. The
    best accuracy so far is not read: it is not the epoch's. An LR on a line of its own holds from
    there on.

    Args:
        path: The file.
        asked: Names that the person gave, by field.
        run: None, as a text log holds one run.

    Raises:
        RecordError: It is no text, or there is no test accuracy in it.
    """
    if run is not None:
        choose_run(str(path), [], run)
    check_file(path, MOST_BYTES)
    halves = are_halves(lines(path, cut=True))

    def texts() -> Iterator[str]:
        return (points(text) for text in lines(path, cut=True)) if halves else lines(path, cut=True)

    def taken(texts: Iterable[str], *, counted: bool = False, barred: bool = False) -> LineReader:
        reader = LineReader(EpochCollector(str(path), asked), counted=counted, barred=barred)
        for text in texts:
            reader.take(text)
        return reader

    reader = taken(texts())
    if reader.epoch is None and (lists := lists_in(texts(), str(path))):
        even = Lists(str(path), asked)
        if any(map(even.is_test, lists)):
            log = read_records(path, even.records(lists), asked, "text")
            log.notes += even.notes
            return log
    if reader.is_named_last:
        log = taken(_named_first(texts())).log()
        log.notes.append(NAMED_LAST)
    elif reader.epoch is None and reader.counts.are_epochs:
        log = taken(texts(), counted=True).log()
        log.notes.append(COUNTS)
    else:
        try:
            log = reader.log()
        except NoAccuracyError:
            pair = reader.bars.pair
            if pair is None:
                raise
            log = taken(texts(), barred=True).log()
            log.notes.append(BARS.format(*(f"{each:g}" for each in pair)))
    if halves:
        log.notes.append(HALVES)
    return log


def _named_first(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a log that names an epoch after its values with the names before them."""
    held: list[str] = []
    for text in texts:
        if DIGIT.search(text) is not None and read_line(text).epoch is not None:
            yield text
            yield from held
            held = []
        else:
            held.append(text)
    yield from held
