"""Excel workbooks -> rows of text. What they would cost openpyxl is estimated before, in one pass over their XML."""

import io
import warnings
import zipfile
from datetime import datetime
from importlib import import_module
from typing import IO, Any
from xml.parsers import expat

MAX_WORKBOOK = 4 * 2**20
"""Maximum bytes of an Excel workbook; 500 holdings take 54 kB."""
MAX_UNPACKED = 16 * 2**20
"""Maximum unpacked bytes of a workbook; 500 holdings unpack to 434 kB."""
MAX_CELLS = 300_000
"""Maximum cells of a workbook's sheet, including empty ones."""
MAX_COLUMNS = 16_384
"""Maximum columns of a sheet, the same as of Excel."""
MAX_COST = 500_000
"""Maximum cost of a workbook's XML: the weights of its tags, and its attributes; that of 500 holdings is 75,000."""
MAX_CHARACTERS = 4 * 2**20
"""Maximum characters of all texts of a workbook; 500 holdings have 108,000."""
MAX_PARTS = 1_000
"""Maximum files in a workbook; one of 500 holdings has 13."""
MAX_TAG = 131_072
"""Maximum bytes of one tag or comment."""
MAX_NAME = 250
"""Maximum characters of the name of a tag with its namespace."""
MAX_DEPTH = 100
"""Maximum depth of tags; 500 holdings have 9."""

# other tags become an object of openpyxl each
_WEIGHTS = {"row": 1, "c": 1, "v": 1, "t": 1, "f": 1, "si": 5, "is": 5}
_OTHER_WEIGHT = 10
_CHUNK = 65_536
_NONE_HAS = "which no workbook of holdings has"


class WorkbookRefused(Exception):
    """A workbook, or one row of it, is larger than workbooks of holdings are."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.line = line


def read_workbook(data: bytes) -> list[tuple[int, list[str]]]:
    """Return the rows of a workbook that are not blank, each with its line; any exception may be raised."""
    if len(data) > MAX_WORKBOOK:
        raise WorkbookRefused(f"is larger than {MAX_WORKBOOK // 2**20} MB, which no workbook of holdings is")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        _check(archive)
    with warnings.catch_warnings():
        # openpyxl warns of styles, which do not matter here
        warnings.simplefilter("ignore")
        # imported only for workbooks, since it takes 0.4 s and 27 MB
        openpyxl = import_module("openpyxl")
        workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        return _cells(workbook.worksheets)


def _check(archive: zipfile.ZipFile) -> None:
    parts = archive.infolist()
    if len(parts) > MAX_PARTS:
        raise WorkbookRefused(f"has more than {MAX_PARTS:,} parts, {_NONE_HAS}")
    # zipfile reads no more of a part than the size in its directory
    if sum(part.file_size for part in parts) > MAX_UNPACKED:
        raise WorkbookRefused(f"unpacks to more than {MAX_UNPACKED // 2**20} MB, which no workbook of holdings does")
    if any(part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for part in parts):
        raise WorkbookRefused("is packed in a way that no workbook is")
    meter, highest = _Meter(), 0
    for part in parts:
        before = meter.cost
        with archive.open(part) as file:
            meter.read(file)
        highest = max(highest, meter.cost - before)
    # a part that several sheets name is read again for each
    if meter.sheets * highest > 2 * MAX_COST:
        raise WorkbookRefused(f"has {meter.sheets:,} large sheets, {_NONE_HAS}")


class _Meter:
    """The cost of the parts of a workbook. A part is read until the first error in its XML, as openpyxl would."""

    def __init__(self) -> None:
        self.cost = self.sheets = self._characters = self._columns = self._depth = 0

    def read(self, file: IO[bytes]) -> None:
        """Add the cost of a part; raise WorkbookRefused if that is too much."""
        self._depth = done = 0
        parser = expat.ParserCreate(namespace_separator="}")
        parser.buffer_text = parser.ordered_attributes = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.CommentHandler = self._comment
        parser.ProcessingInstructionHandler = self._comment
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            while chunk := file.read(_CHUNK):
                done += len(chunk)
                self._add(len(chunk) // 100)
                parser.Parse(chunk, False)  # noqa: FBT003 - the only way
                if done - parser.CurrentByteIndex > MAX_TAG:
                    raise WorkbookRefused(f"has a tag of more than {MAX_TAG:,} bytes, {_NONE_HAS}")
        except expat.ExpatError:
            pass  # an image, or a part that is damaged

    def _add(self, cost: int) -> None:
        self.cost += cost
        if self.cost > MAX_COST:
            raise WorkbookRefused("has more tags than any workbook of holdings")

    def _start(self, name: str, attributes: list[str]) -> None:
        local = name.rpartition("}")[2]
        self._add(_WEIGHTS.get(local, _OTHER_WEIGHT) + len(attributes) // 2)
        self._text("".join(attributes[1::2]))
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise WorkbookRefused(f"has tags within more than {MAX_DEPTH} others, {_NONE_HAS}")
        if len(name) > MAX_NAME or any(len(each) > MAX_NAME for each in attributes[::2]):
            raise WorkbookRefused(f"has a name of more than {MAX_NAME} characters, {_NONE_HAS}")
        if local == "c":
            self._columns += 1
            if self._columns > MAX_COLUMNS:
                raise WorkbookRefused(f"has more than {MAX_COLUMNS:,} columns, {_NONE_HAS}")
        elif local == "row":
            self._columns = 0
        elif local == "sheet":
            self.sheets += 1

    def _end(self, _: str) -> None:
        self._depth -= 1

    def _text(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise WorkbookRefused(f"has more than {MAX_CHARACTERS:,} characters, {_NONE_HAS}")

    def _comment(self, *_: str) -> None:
        self._add(1)

    def _doctype(self, *_: object) -> None:
        raise WorkbookRefused(f"has a part with a document type, {_NONE_HAS}")


def _cells(sheets: list[Any]) -> list[tuple[int, list[str]]]:
    if not sheets:
        raise WorkbookRefused("is a workbook without sheets")
    sheet = next((sheet for sheet in sheets if sheet.title.lower() == "holdings"), sheets[0])
    # the size that some workbooks state is wrong
    sheet.reset_dimensions()
    rows: list[tuple[int, list[str]]] = []
    cells = characters = 0
    for line, values in enumerate(sheet.iter_rows(values_only=True), 1):
        cells += len(values) or 1
        if cells > MAX_CELLS:
            raise WorkbookRefused(f"has more than {MAX_CELLS:,} cells, which no sheet of holdings has", line)
        fields: list[str] = []
        for value in values:
            fields.append(_cell_text(value))
            characters += len(fields[-1])
            # many cells may show one long text
            if characters > MAX_CHARACTERS:
                raise WorkbookRefused(f"has more than {MAX_CHARACTERS:,} characters, {_NONE_HAS}", line)
        if any(fields):
            rows.append((line, fields))
    width = max((len(fields) for _, fields in rows), default=0)
    if width * len(rows) > MAX_CELLS:
        raise WorkbookRefused(f"has more than {MAX_CELLS:,} cells, which no sheet of holdings has")
    # a workbook omits the empty cells at the end of a row
    return [(line, fields + [""] * (width - len(fields))) for line, fields in rows]


def _cell_text(value: object) -> str:
    """Return a cell as CSV would hold it, including symbols that Excel took for numbers, booleans or dates."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).upper()
        case float() if value.is_integer():
            return str(int(value))
        case datetime():
            return value.date().isoformat()
    return str(value).strip()
