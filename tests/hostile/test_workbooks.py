"""Workbooks of some kilobytes that would take hundreds of megabytes or many seconds are refused in one line."""

import io
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import openpyxl
import pytest

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
RELATIONS = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
SHEET, STRINGS, STYLES, BOOK = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml", "xl/styles.xml", "xl/workbook.xml"
SHARED = (
    b'<Override PartName="/xl/sharedStrings.xml" ContentType="application/vnd.openxmlformats-officedocument.'
    b'spreadsheetml.sharedStrings+xml"/>'
)
MEGABYTES, SECONDS = 150, 3.0
NONE_HAS = "which no workbook of holdings has"
# reads a file, and tells what that took
READ = """
import resource, sys, time
from pathlib import Path
from graph.errors import InputFileError
from graph.loading.files import FileErrors, read_rows
def status(name):
    return int(Path("/proc/self/status").read_text().partition(name)[2].split()[0]) // 1024

before, start = status("VmRSS:"), time.process_time()
try:
    said = f"{len(list(read_rows(FileErrors(Path(sys.argv[1])))))} rows"
except InputFileError as error:
    said = str(error)
print(status("VmHWM:") - before, time.process_time() - start, said)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")


def forged(parts: dict[str, str | bytes]) -> bytes:
    """A workbook in which these parts stand in place of its own, or beside them."""
    book = openpyxl.Workbook()
    book.active.append(["x"])
    source, target = io.BytesIO(), io.BytesIO()
    book.save(source)
    with zipfile.ZipFile(source) as genuine, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as forgery:
        for name in genuine.namelist():
            content = genuine.read(name)
            if name == "[Content_Types].xml" and STRINGS in parts and b"sharedStrings" not in content:
                content = content.replace(b"</Types>", SHARED + b"</Types>")
            forgery.writestr(name, parts.get(name) or content)
        for name in parts.keys() - set(genuine.namelist()):
            forgery.writestr(name, parts[name])
    return target.getvalue()


def sheet(rows: str, after: str = "") -> dict[str, str | bytes]:
    return {SHEET: f"<worksheet {MAIN}><sheetData>{rows}</sheetData>{after}</worksheet>"}


def styles(inner: str) -> dict[str, str | bytes]:
    return {STYLES: f"<styleSheet {MAIN}>{inner}</styleSheet>"}


def strings(inner: str) -> dict[str, str | bytes]:
    return {STRINGS: f"<sst {MAIN}>{inner}</sst>"}


def book(sheets: int, inner: str = "") -> dict[str, str | bytes]:
    each = '<sheet name="holdings" sheetId="1" r:id="rId1"/>'
    return {BOOK: f"<workbook {MAIN} {RELATIONS}><sheets>{each * sheets}</sheets>{inner}</workbook>"}


TOO_MANY_TAGS = "has more tags than any workbook of holdings"
TOO_WIDE = f"has more than 16,384 columns, {NONE_HAS}"
TOO_LONG = f"has more than 4,194,304 characters, {NONE_HAS}"
TAG_TOO_LONG = f"has a tag of more than 131,072 bytes, {NONE_HAS}"
SMILE = "\U0001f600"
FORGERIES: dict[str, tuple[dict[str, str | bytes], str]] = {
    "cells in a row": (sheet(f"<row>{'<c/>' * 3_900_000}</row>"), TOO_WIDE),
    "cells with values": (sheet("<row>" + '<c r="A1" s="1" t="n"><v>1</v></c>' * 400_000 + "</row>"), TOO_WIDE),
    "nested tags": (sheet("<a>" * 2_000_000 + "</a>" * 2_000_000), f"has tags within more than 100 others, {NONE_HAS}"),
    "rows": (sheet("<row/>" * 2_600_000), TOO_MANY_TAGS),
    "comments": (sheet("<!---->" * 2_000_000), TOO_MANY_TAGS),
    "merged cells": (sheet("", "<mergeCells>" + '<mergeCell ref="A1:B2"/>' * 600_000 + "</mergeCells>"), TOO_MANY_TAGS),
    "styles": (styles("<cellXfs>" + '<xf numFmtId="0"/>' * 800_000 + "</cellXfs>"), TOO_MANY_TAGS),
    "strings": (strings("<si><t>a</t></si>" * 800_000), TOO_MANY_TAGS),
    "names": (book(1, "<definedNames>" + '<definedName name="a">A1</definedName>' * 300_000 + "</definedNames>"), TOO_MANY_TAGS),
    "sheets": (book(100_000), TOO_MANY_TAGS),
    "a sheet that many name": (book(1_000) | sheet("<row/>" * 100_000), f"has 1,000 large sheets, {NONE_HAS}"),
    "attributes": (sheet("<c " + " ".join(f'a{number:x}=""' for number in range(900_000)) + "/>"), TAG_TOO_LONG),
    "a comment": (sheet(f"<!--{'a' * 15_000_000}-->"), TAG_TOO_LONG),
    "a namespace": (sheet("", f'<x xmlns="{"n" * 30_000}">' + "".join(f"<a{n}/>" for n in range(200_000)) + "</x>"), f"has a name of more than 250 characters, {NONE_HAS}"),
    "a text": (sheet(f'<row><c t="inlineStr"><is><t>{SMILE}{"a" * 15_000_000}</t></is></c></row>'), TOO_LONG),
    "texts": (sheet("<row>" + f'<c t="inlineStr"><is><t>{SMILE}{"a" * 32_000}</t></is></c>' * 450 + "</row>"), TOO_LONG),
    "cells that show one text": (strings(f'<si><t xml:space="preserve">{"a" * 2_000_000} </t></si>') | sheet("<row>" + '<c t="s"><v>0</v></c>' * 3_000 + "</row>"), TOO_LONG),
    "parts": ({f"x{number}": b"" for number in range(30_000)}, f"has more than 1,000 parts, {NONE_HAS}"),
    "a document type": ({SHEET: f"<!DOCTYPE x [<!ATTLIST c s CDATA '{'9' * 30_000}'>]><worksheet {MAIN}><sheetData>{'<c/>' * 9_000}</sheetData></worksheet>"}, f"has a part with a document type, {NONE_HAS}"),
}  # fmt: skip


def measured(tmp_path: Path, content: bytes) -> tuple[int, float, str]:
    """The megabytes and seconds that reading took in a process of its own, and what came of it."""
    (tmp_path / "file.xlsx").write_bytes(content)
    read = subprocess.run(
        [sys.executable, "-c", READ, tmp_path / "file.xlsx"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    ).stdout
    megabytes, seconds, said = read.rstrip("\n").split(" ", 2)
    return int(megabytes), float(seconds), said.replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("name", FORGERIES)
def test_a_small_workbook_that_would_cost_much_is_refused(tmp_path: Path, name: str) -> None:
    parts, reason = FORGERIES[name]
    content = forged(parts)
    assert len(content) < 4 * 2**20
    megabytes, seconds, said = measured(tmp_path, content)
    assert said.replace(", line 1:", ":") == f"file.xlsx: {reason}."
    assert (megabytes < MEGABYTES, seconds < SECONDS) == (True, True), (megabytes, seconds)


def table(rows: int, cell: str = '<c r="{}{}" s="0"><v>{}.5</v></c>') -> str:
    return "".join(
        f'<row r="{number}">{"".join(cell.format(column, number, number) for column in "ABCDEFGH")}</row>'
        for number in range(1, rows + 1)
    )


@pytest.mark.parametrize(
    ("parts", "rows"),
    [
        (sheet(table(10_000)), 10_000),
        (sheet(table(3_400, '<c r="{}{}" t="inlineStr"><is><t>some text {}</t></is></c>')), 3_400),
        (sheet(table(4_000)) | strings("<si><t>some text</t></si>" * 20_000), 4_000),
        (styles("<fonts>" + "<font/>" * 40_000 + "</fonts>"), 1),
        (sheet("", "<conditionalFormatting/>" * 40_000), 0),
    ],
)  # fmt: skip
def test_what_is_just_small_enough_is_read_in_little_time_and_memory(
    tmp_path: Path, parts: dict[str, str | bytes], rows: int
) -> None:
    megabytes, seconds, said = measured(tmp_path, forged(parts))
    assert said == f"{rows} rows"
    assert (megabytes < MEGABYTES, seconds < SECONDS) == (True, True), (megabytes, seconds)
