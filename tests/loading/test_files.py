import gzip
import io
import itertools
import os
import tracemalloc
import zipfile
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest

from graph.errors import InputFileError
from graph.loading.files import FileErrors, NotHoldings, TextRow, read_rows

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def rows(folder: Path, content: bytes) -> list[TextRow]:
    (folder / "file").write_bytes(content)
    return list(read_rows(FileErrors(folder / "file")))


def refusal(folder: Path, content: bytes) -> str:
    with pytest.raises(InputFileError) as caught:
        rows(folder, content)
    assert type(caught.value) is InputFileError
    return str(caught.value).replace(f"{folder}/", "")


def workbook(*sheets: tuple[str, list[list[object]]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, lines in sheets:
        sheet = book.create_sheet(title)
        for line in lines:
            sheet.append(line)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def forged(xml: str) -> bytes:
    """A workbook whose sheet is this XML."""
    source = io.BytesIO(workbook(("holdings", [["x"]])))
    target = io.BytesIO()
    with zipfile.ZipFile(source) as genuine, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as forgery:
        for part in genuine.infolist():
            text = xml.encode() if part.filename == "xl/worksheets/sheet1.xml" else genuine.read(part)
            forgery.writestr(part.filename, text)
    return target.getvalue()


LINES: list[list[object]] = [
    ["Fund:", "SPY"],
    [],
    ["Name", "Ticker", "Weight"],
    ["TrueCar ", True, 0.5],
    ["Toyota", 7203, 7.830057],
    ["Toyota", 7203.0, 1e-06],
    [None, " ", None],
    ["Text", "NA", "1.5"],
    [datetime(2025, 11, 18), "MAR", -1],  # noqa: DTZ001 - Excel knows no zones
]
READ = [
    (1, ["Fund:", "SPY", ""]),
    (3, ["Name", "Ticker", "Weight"]),
    (4, ["TrueCar", "TRUE", "0.5"]),
    (5, ["Toyota", "7203", "7.830057"]),
    (6, ["Toyota", "7203", "1e-06"]),
    (8, ["Text", "NA", "1.5"]),
    (9, ["2025-11-18", "MAR", "-1"]),
]


def test_a_workbook_reads_as_csv_would(tmp_path: Path) -> None:
    book = workbook(("Holdings", LINES))
    assert rows(tmp_path, book) == READ
    assert rows(tmp_path, gzip.compress(book)) == READ


def test_the_sheet_of_holdings_is_read_or_else_the_first(tmp_path: Path) -> None:
    assert rows(tmp_path, workbook(("about", [["x"]]), ("Holdings", [["y"]]))) == [(1, ["y"])]
    assert rows(tmp_path, workbook(("about", [["x"]]), ("more", [["y"]]))) == [(1, ["x"])]
    assert rows(tmp_path, workbook(("empty", []))) == []


def test_a_sheet_that_is_wrong_of_its_own_size_is_read_whole(tmp_path: Path) -> None:
    cells = "".join(f'<row r="{n}"><c r="A{n}"><v>{n}.5E3</v></c><c r="B{n}"><v>{n}.5</v></c></row>' for n in (1, 2))
    sheet = f'<worksheet {MAIN}><dimension ref="A1:A1"/><sheetData>{cells}</sheetData></worksheet>'
    assert rows(tmp_path, forged(sheet)) == [(1, ["1500", "1.5"]), (2, ["2500", "2.5"])]


def test_what_is_large_is_refused_in_little_memory(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(17 * 2**20))
    (tmp_path / "zeros.xlsx").write_bytes(b"PK\x03\x04")
    os.truncate(tmp_path / "zeros.xlsx", 200 * 2**20)
    (tmp_path / "zeros.csv").touch()
    os.truncate(tmp_path / "zeros.csv", 200 * 2**20)
    tracemalloc.start()
    try:
        assert (
            refusal(tmp_path, bomb.getvalue())
            == "file: unpacks to more than 16 MB, which no workbook of holdings does."
        )
        with pytest.raises(InputFileError, match=r"is larger than 4 MB, which no workbook of holdings is\.$"):
            list(read_rows(FileErrors(tmp_path / "zeros.xlsx")))
        with pytest.raises(InputFileError, match=r"line 1: holds a zero byte; this is not a text file\.$"):
            list(read_rows(FileErrors(tmp_path / "zeros.csv")))
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


def row(number: int, cell: str) -> str:
    return f'<row r="{number}"><c r="{cell}{number}"><v>1</v></c></row>'


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (row(1_048_576, "XFD"), ", line 300001"),
        ("".join(row(number, "XFD") for number in range(1, 100)), ", line 19"),
        (row(1, "XFD") + "".join(row(number, "A") for number in range(2, 100)), ""),
    ],
)
def test_a_sheet_of_a_few_cells_far_away_is_refused(tmp_path: Path, lines: str, where: str) -> None:
    sheet = forged(f"<worksheet {MAIN}><sheetData>{lines}</sheetData></worksheet>")
    message = f"file{where}: has more than 300,000 cells, which no sheet of holdings has."
    assert refusal(tmp_path, sheet) == message


def test_a_sheet_of_entities_within_entities_is_refused(tmp_path: Path) -> None:
    entities = '<!ENTITY a "' + "x" * 1000 + '">'
    entities += "".join(f'<!ENTITY {each} "' + f"&{last};" * 10 + '">' for last, each in itertools.pairwise("abcdefgh"))
    cell = '<c t="inlineStr"><is><t>&h;</t></is></c>'
    sheet = f"<!DOCTYPE x [{entities}]><worksheet {MAIN}><sheetData><row>{cell}</row></sheetData></worksheet>"
    assert refusal(tmp_path, forged(sheet)) == (
        "file: has a part with a document type, which no workbook of holdings has."
    )


def test_what_is_no_workbook(tmp_path: Path) -> None:
    document = io.BytesIO()
    with zipfile.ZipFile(document, "w") as archive:
        archive.writestr(
            "[Content_Types].xml", "<Types xmlns='http://schemas.openxmlformats.org/package/2006/content-types'/>"
        )
        archive.writestr("word/document.xml", "<document/>")
    begin = "file: is no Excel workbook that can be read ("
    for content in (document.getvalue(), workbook(("x", LINES))[:-100], b"PK\x03\x04" + bytes(1000)):
        message = refusal(tmp_path, content)
        assert message.startswith(begin)
        assert "\n" not in message


def test_a_workbook_without_sheets(tmp_path: Path) -> None:
    source = workbook(("x", [["y"]]))
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(source)) as genuine, zipfile.ZipFile(target, "w") as forgery:
        for part in genuine.infolist():
            text = genuine.read(part)
            if part.filename == "xl/workbook.xml":
                start, end = text.index(b"<sheets>"), text.index(b"</sheets>")
                text = text[:start] + b"<sheets>" + text[end:]
            forgery.writestr(part.filename, text)
    assert refusal(tmp_path, target.getvalue()) == "file: is a workbook without sheets."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "file: is an Excel file of the old kind (.xls); save it as .xlsx or CSV."),
        (b"%PDF-1.7\n", "file: is a PDF; download the holdings as CSV or .xlsx."),
        (b"\n\n  <html>" + b"x" * 200_000, "file, line 3: is a page of HTML or XML and not CSV; download it again."),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<Workbook>', "file, line 1: is a page of HTML or XML and not CSV; download it again."),
        (b"\n" * 20_000, "file, line 10001: is the last of more than 10,000 blank lines."),
        (b"a,b\n" + b" \n" * 20_000, "file, line 10002: is the last of more than 10,000 blank lines."),
        (b"0" * 200_000, "file, line 1: is longer than 131,072 characters."),
        (gzip.compress(bytes(200 * 2**20), 1), "file, line 1: holds a zero byte; this is not a text file."),
        (gzip.compress(b"a,b\n" * 1000)[:-9], "file, line 1001: is not whole as a gzip file: Compressed file ended before the end-of-stream marker was reached."),
    ],
)  # fmt: skip
def test_what_is_no_text_of_rows(tmp_path: Path, content: bytes, message: str) -> None:
    assert refusal(tmp_path, content) == message


def test_a_line_that_begins_with_less_than_is_no_page_after_others(tmp_path: Path) -> None:
    assert rows(tmp_path, b"\n\na,b\n<1,2\n") == [(3, ["a", "b"]), (4, ["<1", "2"])]


def test_errors_of_a_file_are_told_apart_by_their_kind(tmp_path: Path) -> None:
    errors = FileErrors(tmp_path / "file")
    assert type(errors.error("x", kind=NotHoldings)) is NotHoldings
