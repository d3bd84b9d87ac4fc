import csv
import dataclasses
import gzip
import io
import os
import random
import zipfile
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import cast
from xml.etree import ElementTree as ET

import openpyxl
import pytest
from conftest import DATA

from graph.errors import InputFileError
from graph.loading.discovery import PathContents, read_paths
from graph.loading.holdings import GroupHoldings, Holding, SkippedRow, Unit

D = Decimal
SAMPLES = DATA / "holdings"
VENDOR_FILES = os.environ.get("TEST_VENDOR_FILES")
"""A folder of files as vendors publish them, which may not be passed on."""


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, text in files.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def read(folder: Path, content: str | bytes, file: str = "etf_SPY.csv", weights: str | None = None) -> PathContents:
    """Read one file with this content."""
    return read_paths([write(folder, {file: content}) / file], weights=cast("Unit | None", weights))


def errors(reading: PathContents, folder: Path) -> list[str]:
    """The errors of a reading that gave nothing else, without the folder."""
    assert (reading.groups, reading.notes) == ((), ())
    return [str(error).replace(f"{folder}/", "") for error in reading.errors]


def notes(reading: PathContents, folder: Path) -> list[str]:
    return [note.replace(f"{folder}/", "") for note in reading.notes]


SPY = GroupHoldings(
    "ETF",
    "SPY",
    (
        Holding("NVDA", D("0.6"), "NVIDIA CORP"),
        Holding("BRK.B", D("0.4"), "Berkshire, Inc."),
        Holding("NA", None, None),
    ),
)
PLAIN = 'symbol,name,weight\nNVDA,NVIDIA CORP,0.6\nBRK.B,"Berkshire, Inc.",0.4\nNA,,\n'


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "\ufeff" + PLAIN,
        PLAIN.rstrip("\n"),
        "\n , ,\n\u00a0\n" + PLAIN.replace("\n", "\n\n,,\n"),
        'Weight , SYMBOL,name\n0.6 , nvda  ,NVIDIA  CORP\n0.4,BRK.B,"Berkshire,\nInc." \n,na,\n',
        'symbol,name,weight\n"NVDA","NVIDIA CORP", "0.6" \n BRK.B , "Berkshire, Inc." ,0.4\nNA,,,\n',
        'symbol,shares,name,weight,cusip\nNVDA,9,NVIDIA CORP,0.6,x\nBRK.B,9,"Berkshire, Inc.",.4,x\nNA,,,,\n',
        'symbol,name,weight\nNVDA,NVIDIA CORP,60%\nBRK.B,"Berkshire, Inc.",40 %\nNA,,\n',
        'symbol,name,weight\nNVDA,NVIDIA CORP,6E+1\nBRK.B,"Berkshire, Inc.",+40.\nNA,,\n',
        gzip.compress(PLAIN.encode()),
    ],
)
def test_the_plain_form_however_it_is_written(tmp_path: Path, content: str | bytes) -> None:
    assert read(tmp_path, content) == PathContents((SPY,))


def test_words_that_others_take_for_missing_are_symbols(tmp_path: Path) -> None:
    words = ["NA", "NAN", "NULL", "TRUE", "-", "1E5", "N/A"]
    reading = read(tmp_path, "symbol,weight\n" + "".join(f"{word},\n" for word in words))
    assert reading == PathContents((GroupHoldings("ETF", "SPY", tuple(Holding(word) for word in words)),))


@pytest.mark.parametrize(
    ("written", "stated", "fractions"),
    [
        (["0.25", "0.25"], None, ["0.25", "0.25"]),
        (["1.5"], None, ["1.5"]),
        (["50"], None, ["0.5"]),
        (["100", "50"], None, ["1", "0.5"]),
        (["100"], None, ["1"]),
        (["1"], None, ["1"]),
        (["101.5", "-1.5", ""], None, ["1.015", "-0.015", None]),
        (["0.3%"], None, ["0.003"]),
        (["0.3"], "percent", ["0.003"]),
        (["0.3"], "fraction", ["0.3"]),
        (["0.3%"], "percent", ["0.003"]),
        (["0", "0"], "fraction", ["0", "0"]),
        (["7", "9.999999999"], "fraction", ["7", "9.999999999"]),
        (["0.123456789012345678901234567890", "0.5"], None, ["0.123456789012345678901234567890", "0.5"]),
        (["", ""], None, [None, None]),
        (["", ""], "percent", [None, None]),
    ],
)
def test_fractions_and_percent(
    tmp_path: Path, written: list[str], stated: str | None, fractions: list[str | None]
) -> None:
    rows = "".join(f"S{number},{weight}\n" for number, weight in enumerate(written))
    reading = read(tmp_path, "symbol,weight\n" + rows, weights=stated)
    assert reading.errors == ()
    assert [holding.weight for holding in reading.groups[0].holdings] == [f if f is None else D(f) for f in fractions]


@pytest.mark.parametrize(
    ("written", "stated", "message"),
    [
        (["0.3"], None, "the weights sum to 0.3, neither near 1 nor near 100; say which they are with --weights fraction or --weights percent."),
        (["0"], None, "the weights sum to 0, neither near 1 nor near 100; say which they are with --weights fraction or --weights percent."),
        (["1.51"], None, "the weights sum to 1.51, neither near 1 nor near 100; say which they are with --weights fraction or --weights percent."),
        (["49.99"], None, "the weights sum to 49.99, neither near 1 nor near 100; say which they are with --weights fraction or --weights percent."),
        (["151"], None, "the weights sum to 151, neither near 1 nor near 100; say which they are with --weights fraction or --weights percent."),
        (["1e999"], None, "the weights sum to 1.00000e+999, neither near 1 nor near 100; say which they are with --weights fraction or --weights percent."),
        (["60%", "40"], None, "some weights have a percent sign and others have none."),
        (["60%"], "fraction", "the weights have percent signs, so they are no fractions; leave out --weights."),
    ],
)  # fmt: skip
def test_weights_whose_unit_cannot_be_told(
    tmp_path: Path, written: list[str], stated: str | None, message: str
) -> None:
    rows = "".join(f"S{number},{weight}\n" for number, weight in enumerate(written))
    reading = read(tmp_path, "symbol,weight\n" + rows, weights=stated)
    assert errors(reading, tmp_path) == [f"etf_SPY.csv: {message}"]


@pytest.mark.parametrize(
    ("rows", "messages"),
    [
        ("AAPL,x,0.5\nMSFT,x,\nAAPL,y,0.5", ["line 4: symbol AAPL is on line 2 too."]),
        ("AAPL,x,0.5\n\naapl ,y,0.5", ["line 4: symbol AAPL is on line 2 too."]),
        (",x,1", ["line 2: symbol '' is not 1 to 50 characters without white space."]),
        ("A B,x,1", ["line 2: symbol 'A B' is not 1 to 50 characters without white space."]),
        ("A\u200bB,x,1", ["line 2: symbol 'A\\u200bB' is not 1 to 50 characters without white space."]),
        ("A\x07,x,1", ["line 2: symbol 'A\\x07' is not 1 to 50 characters without white space."]),
        ("A" * 51 + ",x,1", [f"line 2: symbol '{'A' * 51}' is not 1 to 50 characters without white space."]),
        ("A,x", ["line 2: has 2 fields where the header has 3; a field with a comma needs quotes."]),
        ("A,Apple, Inc.,1", ["line 2: has 4 fields where the header has 3; a field with a comma needs quotes."]),
        ("A,x,1\nB,x,one", ["line 3: weight 'one' is not a number such as 0.065, 6.5 or 6.5%."]),
        ("A,x,NaN", ["line 2: weight 'NaN' is not a number such as 0.065, 6.5 or 6.5%."]),
        ("A,x,Infinity", ["line 2: weight 'Infinity' is not a number such as 0.065, 6.5 or 6.5%."]),
        ("A,x,1_0", ["line 2: weight '1_0' is not a number such as 0.065, 6.5 or 6.5%."]),
        ("A,x,\u0661", ["line 2: weight '\u0661' is not a number such as 0.065, 6.5 or 6.5%."]),
        ('A,x,"0,5"', ["line 2: weight '0,5' is not a number such as 0.065, 6.5 or 6.5%."]),
        ("A,x,%", ["line 2: weight '%' is not a number such as 0.065, 6.5 or 6.5%."]),
        ("A,x,1e9999", ["line 2: weight '1e9999' is not a number such as 0.065, 6.5 or 6.5%."]),
        ("A,x," + "9" * 200 + "x", [f"line 2: weight '{'9' * 99}…' is not a number such as 0.065, 6.5 or 6.5%."]),
        ("A,x,10\nB,x,-9", ["line 2: weight 10 is not between -10 and 10."]),
        ("A,x,-1000%\nB,x,999%", ["line 2: weight -1000 is not between -1000 and 1000 percent."]),
        ('A,"x\n\ny",0.5\nB,x,', []),
        ('A,"x\n\ny",0.5\nB C,x,', ["line 5: symbol 'B C' is not 1 to 50 characters without white space."]),
        (
            'A,"x\n\ny",z\n,x,',
            [
                "line 2: weight 'z' is not a number such as 0.065, 6.5 or 6.5%.",
                "line 5: symbol '' is not 1 to 50 characters without white space.",
            ],
        ),
        (
            'A,x,0.5\nB,"x,0.5\nC,x,0.5',
            ["line 3: the row that begins here is not CSV; unexpected end of data (a double quote is never closed)."],
        ),
        (
            'A A,x,1\nB,"x,0.5\nC,"x",0.5',
            [
                "line 2: symbol 'A A' is not 1 to 50 characters without white space.",
                "line 3: the row that begins here is not CSV; ',' expected after '\"'.",
            ],
        ),
    ],
)
def test_bad_rows_are_named_by_line_and_reason(tmp_path: Path, rows: str, messages: list[str]) -> None:
    reading = read(tmp_path, "symbol,name,weight\n" + rows)
    if messages:
        assert errors(reading, tmp_path) == [f"etf_SPY.csv, {message}" for message in messages]
    else:
        assert (reading.errors, len(reading.groups)) == ((), 1)


def test_twenty_bad_rows_are_named_and_the_others_counted(tmp_path: Path) -> None:
    reading = read(tmp_path, "symbol,weight\n" + "A A,1\n" * 1_030 + '"')
    assert errors(reading, tmp_path) == [
        *(
            f"etf_SPY.csv, line {line}: symbol 'A A' is not 1 to 50 characters without white space."
            for line in range(2, 22)
        ),
        "etf_SPY.csv: 1,010 more bad rows.",
        "etf_SPY.csv, line 1032: the row that begins here is not CSV; unexpected end of data (a double quote is never closed).",
    ]


def test_bytes_that_are_not_utf_8_are_named_by_line(tmp_path: Path) -> None:
    content = 'symbol,name,weight\nA,"x\nCaf\xe9",\nB,ok,\n\xdc,x,\n'.encode("latin-1")
    assert errors(read(tmp_path, content), tmp_path) == [
        "etf_SPY.csv, line 3: character 4 is not UTF-8 (byte 0xe9); save the file as UTF-8.",
        "etf_SPY.csv, line 5: character 1 is not UTF-8 (byte 0xdc); save the file as UTF-8.",
    ]


def test_a_name_beyond_ascii_is_kept(tmp_path: Path) -> None:
    reading = read(tmp_path, "symbol,name,weight\nMC.PA,LVMH Moët Hennessy \U0001f377,\n")
    assert reading.groups[0].holdings == (Holding("MC.PA", None, "LVMH Moët Hennessy \U0001f377"),)


COLUMNS = (
    "are none of symbol,name,weight; symbol,sector,industry;"
    " or as iShares, SSGA, Invesco, Vanguard and ARK publish holdings."
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": is empty."),
        (b"\xef\xbb\xbf", ": is empty."),
        (b"\n \n,,\n", ": is empty."),
        (b"symbol,name,weight\n", ": has a header and no rows; an empty file does not empty a group."),
        (b"symbol,sector,industry\n\n", ": has a header and no rows; an empty file does not empty a group."),
        (b"AAPL,Apple,0.5\n", f", line 1: the columns 'AAPL,Apple,0.5' {COLUMNS}"),
        (b"symbol;name;weight\nA;x;1\n", f", line 1: the columns 'symbol;name;weight' {COLUMNS}"),
        (b"x" * 200 + b",y\n", f", line 1: the columns '{'x' * 99}\u2026' {COLUMNS}"),
        (b"symbol,name\nAAPL,Apple\n", f", line 1: the columns 'symbol,name' {COLUMNS}"),
        (b"symbol,weight,Symbol\nA,1,A\n", ", line 1: the column 'Symbol' is there twice."),
        (b"\n\n<!DOCTYPE html>\n<html></html>", ", line 3: is a page of HTML or XML and not CSV; download it again."),
        (b"time,open,high,low\n", ", line 1: holds prices without the columns date and close."),
        (
            b"PK\x03\x04\0\0\0",
            ": is no Excel workbook that can be read ('BadZipFile: File is not a zip file').",
        ),
        (b"symbol,name,weight\nA,\0,1\n", ", line 2: holds a zero byte; this is not a text file."),
        (b"\0" * 1_000_000, ", line 1: holds a zero byte; this is not a text file."),
        (b"symbol,weight\n" + b"9" * 200_000, ", line 2: is longer than 131,072 characters."),
        (
            b'symbol,weight\n"' + b"9999999\n" * 20_000,
            ", line 2: the row that begins here is not CSV; field larger than field limit (131072).",
        ),
        (
            gzip.compress(PLAIN.encode())[:-8],
            ", line 5: is not whole as a gzip file: Compressed file ended before the end-of-stream marker was reached.",
        ),
        (
            gzip.compress(PLAIN.encode()) + b"tail",
            ", line 5: is not whole as a gzip file: Not a gzipped file (b'ta').",
        ),
    ],
)
def test_what_is_no_file_of_holdings(tmp_path: Path, content: bytes, message: str) -> None:
    assert errors(read(tmp_path, content), tmp_path) == [f"etf_SPY.csv{message}"]


def test_text_in_utf_16_is_refused(tmp_path: Path) -> None:
    (first, *_) = errors(read(tmp_path, PLAIN.encode("utf-16")), tmp_path)
    assert first == "etf_SPY.csv, line 1: holds a zero byte; this is not a text file."


HINT = "etf_<NAME>.csv (theme_, universe_, segment_, custom_, sector_ likewise) or sectors.csv"


SECTORS = "symbol,sector,industry\nA,Health Care,Life Sciences\nXOM,Energy,\nUNH, health  care ,Managed Care\n"
ENERGY = GroupHoldings("SECTOR", "energy", (Holding("XOM"),), "Energy")
HEALTH = GroupHoldings(
    "SECTOR",
    "health_care",
    (Holding("A", industry="Life Sciences"), Holding("UNH", industry="Managed Care")),
    "Health Care",
)


def test_a_file_of_sectors_gives_a_group_for_each(tmp_path: Path) -> None:
    assert read(tmp_path, SECTORS, "sectors.csv") == PathContents((ENERGY, HEALTH))
    assert read(tmp_path, SECTORS, "gics.csv") == PathContents((ENERGY, HEALTH))
    assert read(tmp_path, "sector,symbol\nEnergy,XOM\n", "sectors.csv.gz") == PathContents((ENERGY,))
    assert read_paths([tmp_path / "gics.csv"], group_type="sector") == PathContents((ENERGY, HEALTH))


def test_bad_rows_of_sectors(tmp_path: Path) -> None:
    content = SECTORS + "B,,x\nC,&,x\nA,Energy,\nD,Energy\n"
    assert errors(read(tmp_path, content, "sectors.csv"), tmp_path) == [
        "sectors.csv, line 5: sector '' is not a name of 1 to 100 characters.",
        "sectors.csv, line 6: sector '&' is not a name of 1 to 100 characters.",
        "sectors.csv, line 7: symbol A is on line 2 too.",
        "sectors.csv, line 8: has 2 fields where the header has 3; a field with a comma needs quotes.",
    ]


def test_sectors_are_not_one_group(tmp_path: Path) -> None:
    path = write(tmp_path, {"etf_SPY.csv": SECTORS, "sectors.csv": SECTORS})
    assert errors(read_paths([path / "etf_SPY.csv"]), tmp_path) == [
        "etf_SPY.csv: holds a group for each sector, so it is no ETF SPY; name it sectors.csv, and give no --name."
    ]
    assert errors(read_paths([path / "sectors.csv"], group_type="THEME"), tmp_path) == [
        "sectors.csv: holds a group for each sector, so it is no THEME; name it sectors.csv, and give no --name."
    ]


def test_a_large_file_is_read_whole(tmp_path: Path) -> None:
    rows = "".join(f"S{number},Number {number},0.00005\n" for number in range(20_000))
    (group,) = read(tmp_path, "symbol,name,weight\n" + rows).groups
    assert len(group.holdings) == 20_000
    assert group.holdings[-1] == Holding("S19999", D("0.00005"), "Number 19999")


def test_holdings_that_are_too_many_to_keep_are_read_again_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path,
        {
            "etf_FRACTIONS.csv": PLAIN,
            "etf_PERCENT.csv.gz": gzip.compress(b"symbol,weight\nA,60\nB,40\n"),
            "ivv_holdings.csv": (SAMPLES / "ishares.csv").read_bytes(),
            "spy_holdings.xlsx": workbook(*SSGA_LINES),
            "sectors.csv": SECTORS,
        },
    )
    kept = read_paths([tmp_path])
    assert [len(group.holdings) for group in kept.groups] == [3, 2, 8, 1, 2, 4]
    # the room is gone after the first file, while the largest table still fits
    write(tmp_path, {"etf_A.csv": "symbol,weight\n" + "".join(f"S{number},0.05\n" for number in range(20))})
    monkeypatch.setattr("graph.loading.holdings.MAX_KEPT", 20)

    again = read_paths([tmp_path])

    first, *others = again.groups
    assert isinstance(first.holdings, tuple)
    assert [type(group.holdings).__name__ for group in others] == ["RereadHoldings"] * 6
    for _ in range(2):
        assert tuple(dataclasses.replace(group, holdings=tuple(group.holdings)) for group in others) == kept.groups
    assert [len(group.holdings) for group in others] == [3, 2, 8, 1, 2, 4]
    assert Holding("NA", None, None) in others[0].holdings
    assert Holding("MISSING") not in others[0].holdings
    assert (again.errors, again.notes) == (kept.errors, kept.notes)


def test_a_long_file_is_checked_whole_before_any_of_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.loading.holdings.MAX_KEPT", 3)
    rows = ["A,0.5", "B,0.25", "C,0.125", "D,0.125"]

    def told(*more: str, weights: str | None = None) -> list[str]:
        return errors(read(tmp_path, "\n".join(["symbol,weight", *rows, *more]), weights=weights), tmp_path)

    assert told("A,", "E,x", "F G,") == [
        "etf_SPY.csv, line 6: symbol A is on line 2 too.",
        "etf_SPY.csv, line 7: weight 'x' is not a number such as 0.065, 6.5 or 6.5%.",
        "etf_SPY.csv, line 8: symbol 'F G' is not 1 to 50 characters without white space.",
    ]
    assert told("E,11", "F,-10", weights="fraction") == [
        "etf_SPY.csv, line 6: weight 11 is not between -10 and 10.",
        "etf_SPY.csv, line 7: weight -10 is not between -10 and 10.",
    ]
    assert told("E,1%") == ["etf_SPY.csv: some weights have a percent sign and others have none."]
    (reason,) = told("E,7")
    assert reason.startswith("etf_SPY.csv: the weights sum to 8.000, neither near 1 nor near 100; say which they are")
    # which only the database can tell
    assert [holding.symbol for holding in read(tmp_path, "symbol,weight\nA,\nB,\nC,\nD,\nD,\n").groups[0].holdings] == [
        *"ABCDD"
    ]


def test_a_file_that_has_changed_or_is_gone_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.loading.holdings.MAX_KEPT", 2)
    file = tmp_path / "etf_SPY.csv"

    def why(change: Callable[[], object]) -> str:
        (group,) = read(tmp_path, PLAIN).groups
        change()
        with pytest.raises(InputFileError) as refused:
            list(group.holdings)
        return str(refused.value).replace(f"{tmp_path}/", "")

    changed = "etf_SPY.csv: changed while it was read; load it again."
    assert why(lambda: file.write_text(PLAIN.replace("0.6", "0.60"))) == changed
    assert why(lambda: os.utime(file, (0, 0))) == changed
    assert why(lambda: write(tmp_path, {"new": PLAIN}).joinpath("new").replace(file)) == changed
    assert why(lambda: file.write_text("")) == changed
    assert why(file.unlink) == "etf_SPY.csv: cannot be read: No such file or directory."
    (group,) = read(tmp_path, PLAIN).groups
    rows = iter(group.holdings)
    next(rows)
    with file.open("a") as writer:
        writer.write("MORE,,\n")
    with pytest.raises(InputFileError, match="changed while it was read"):
        list(rows)


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("sectors.csv", "symbol,sector\n" + "".join(f"S{number},x\n" for number in range(9)), 9),
        ("etf_X.csv", "Ticker,Name,Asset Class,Weight (%)\n" + "".join(f"S{n},x,Equity,10\n" for n in range(9)), 9),
    ],
)
def test_a_table_that_must_be_kept_whole_has_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str, line: int
) -> None:
    monkeypatch.setattr("graph.loading.holdings.MAX_KEPT", 7)
    assert errors(read(tmp_path, content, file), tmp_path) == [
        f"{file}, line {line}: is the last of more than 7 rows, which only a file of symbol,name,weight may have."
    ]


def test_how_far_the_reading_is_is_told(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int | None]] = []
    file = write(tmp_path, {"etf_A.csv": "symbol,weight\n" + "".join(f"S{n},\n" for n in range(12_000))}) / "etf_A.csv"
    read_paths([file], progress=lambda *each: heard.append(each))
    size = file.stat().st_size
    assert [(what, of) for what, _, of in heard] == [(f"Reading {file}", size)] * 3
    first, second, third = (done for _, done, _ in heard)
    assert 0 < first < second < third <= size


ISHARES = GroupHoldings(
    "ETF",
    "IVV",
    (
        Holding("NVDA", D("0.6012"), "NVIDIA CORP"),
        Holding("BRK.B", D("0.2130"), "BERKSHIRE HATHAWAY INC CLASS B"),
        Holding("GOOGL", D("0.1005"), "ALPHABET INC CLASS A"),
        Holding("CVI", D("0.0510"), "CVR ENERGY INC"),
        Holding("JPM", D("0.0146"), "JPMORGAN CHASE & CO"),
        Holding("HUBB", D("0.0080"), "HUBBELL INC"),
        Holding("MOG.A", D("0.0002"), "MOOG INC CLASS A"),
        Holding("TRUE", None, "TRUECAR INC"),
    ),
    None,
    date(2025, 11, 18),
    (
        SkippedRow(11, "JPM", "CASH COLLATERAL USD JPM", D("0.0000"), "collateral"),
        SkippedRow(17, "XTSLA", "BLK CSH FND TREASURY SL AGENCY", D("0.0099"), "money market"),
        SkippedRow(20, "ADRO", "CHINOOK THERAPEUTICS INC CVR", D("0.0000"), "contingent value right"),
        SkippedRow(21, "-", "GCI LIBERTY INC ESCROW", D("0.0000"), "escrow"),
        SkippedRow(22, "-", "PRIVATE HOLDINGS INC", D("0.0000"), "no ticker"),
        SkippedRow(23, "TDGWT", "TEXAS DIGITAL WT EXP 01/15/2030", D("0.0000"), "warrant"),
        SkippedRow(25, "SHRT", "SOLD SHORT INC", D("-0.0001"), "short position"),
        SkippedRow(26, "USD", "USD CASH", D("0.0006"), "cash"),
        SkippedRow(27, "EUR", "EUR/USD", D("0.0001"), "currency"),
        SkippedRow(28, "ESZ5", "S&P500 EMINI DEC 25", D("0.0000"), "futures"),
    ),
)
ABROAD = GroupHoldings(
    "ETF",
    "IEFA",
    (
        Holding("7203.T", D("0.4000"), "TOYOTA MOTOR CORP"),
        Holding("SAN.PA", D("0.2000"), "SANOFI SA"),
        Holding("SAN.MC", D("0.1000"), "BANCO SANTANDER SA"),
        Holding("NOVO-B.CO", D("0.0800"), "NOVO NORDISK CLASS B"),
        Holding("BP.L", D("0.0700"), "BP PLC"),
        Holding("0700.HK", D("0.0600"), "TENCENT HOLDINGS LTD"),
        Holding("AAPL", D("0.0500"), "APPLE INC"),
        Holding("ECOPETROL", D("0.0400"), "ECOPETROL SA"),
    ),
    None,
    date(2025, 9, 30),
)
INVESCO = GroupHoldings(
    "ETF",
    "QQQ",
    (
        Holding("AAPL", D("0.51822"), "Apple Inc"),
        Holding("ASML", D("0.30148"), "ASML Holding NV"),
        Holding("EQIX", D("0.17900"), "Equinix Inc"),
    ),
    None,
    date(2025, 7, 2),
    (
        SkippedRow(5, "", "US Dollars", D("0.00100"), "currency"),
        SkippedRow(6, "AGPXX", "Invesco Government & Agency Portfolio", D("0.00030"), "money market"),
    ),
)
INVESCO_TNA = GroupHoldings(
    "ETF",
    "SPLG",
    (Holding("NVDA", D("0.6001"), "NVIDIA Corp"), Holding("BRK.B", D("0.3901"), "Berkshire Hathaway Inc")),
    left_out=(SkippedRow(4, "-", "Invesco Treasury", D("0.0098"), "money market"),),
)
VANGUARD = GroupHoldings(
    "ETF",
    "VT",
    (
        Holding("AAPL", D("0.5920"), "Apple Inc."),
        Holding("BRK.B", D("0.3050"), "Berkshire Hathaway Inc. Class B"),
        Holding("2330", D("0.0900"), "Taiwan Semiconductor Manufacturing Co. Ltd."),
        Holding("LQDT", D(0), "Liquidity Services Inc."),
    ),
    None,
    date(2025, 9, 30),
    (
        SkippedRow(13, "RGT", "Mystery Rights", D(0), "right"),
        SkippedRow(19, "B", "United States Treasury Bill", D("0.0030"), "bond"),
        SkippedRow(25, "---", "SLBBH1142", D("0.0063"), "money market"),
        SkippedRow(26, "---", "CMT MARKET LIQUIDITY", D("0.0007"), "money market"),
    ),
)
ARK = GroupHoldings(
    "ETF",
    "ARKQ",
    (
        Holding("TSLA", D("0.7175"), "TESLA INC"),
        Holding("6301.T", D("0.1862"), "KOMATSU LTD"),
        Holding("TRMB", D("0.0945"), "TRIMBLE INC"),
    ),
    None,
    date(2024, 6, 4),
    (SkippedRow(5, "", "GOLDMAN FS TRSY OBLIG INST 468", D("0.0018"), "money market"),),
)
LIST = GroupHoldings(
    "ETF",
    "QQQ",
    (Holding("NVDA", D("0.59921"), "NVIDIA Corp"), Holding("BF.B", D("0.40086"), "Brown-Forman Corp")),
    None,
    date(2025, 10, 4),
    (SkippedRow(4, "NAN", "not a stock", D(0), "no ticker"),),
)
CONSTITUENTS = GroupHoldings(
    "UNIVERSE",
    "sp500",
    (
        Holding("MMM", None, "3M", "Industrial Conglomerates"),
        Holding("BRK.B", None, "Berkshire Hathaway", "Multi-Sector Holdings"),
        Holding("NA", None, "Nano Labs"),
    ),
    None,
    date(2025, 8, 12),
)
ABROAD_NOTE = "listed abroad, where no suffix is known, and kept as the vendor writes them: ECOPETROL."


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("sample", "file", "group"),
    [
        ("ishares.csv", "IVV_holdings (1).csv", ISHARES),
        ("ishares_abroad.csv", "IEFA-holdings.csv", ABROAD),
        ("invesco.csv", "download.csv", INVESCO),
        ("invesco_tna.csv", "etf_SPLG.csv", INVESCO_TNA),
        ("vanguard.csv", "Holdings_details_Total_World.csv", VANGUARD),
        ("ark.csv", "ARK_AUTONOMOUS_TECH_ETF_ARKQ_HOLDINGS.csv", ARK),
        ("list.csv", "qqq_2025-10-04.csv", LIST),
        ("constituents.csv", "universe_sp500_2025-08-12.csv", CONSTITUENTS),
    ],
)
def test_files_as_vendors_publish_them(
    tmp_path: Path, sample: str, file: str, group: GroupHoldings, *, packed: bool
) -> None:
    content = (SAMPLES / sample).read_bytes()
    reading = read(tmp_path, gzip.compress(content) if packed else content, file)
    assert (reading.groups, reading.errors) == ((group,), ())
    assert notes(reading, tmp_path) == ([f"{file}: {ABROAD_NOTE}"] if group is ABROAD else [])


def workbook(*lines: list[object]) -> bytes:
    book = openpyxl.Workbook()
    for line in lines:
        book.active.append(line)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


SSGA_LINES: list[list[object]] = [
    ["Fund Name:", "Made Up Fund"],
    ["Ticker Symbol:", "SPY"],
    ["Holdings:", "As of 18-Nov-2025"],
    [],
    ["Name", "Ticker", "Identifier", "SEDOL", "Weight", "Sector", "Shares StockGroups", "Local Currency"],
    ["NVIDIA CORP", "NVDA", "67066G104", "2379504", 70.830057, "-", 293804757.0, "USD"],
    ["BERKSHIRE HATHAWAY INC CL B", "BRK.B", "084670702", "2073390", 20.2, "-", 1, "USD"],
    ["TRUECAR INC", True, "1", "2", 6.3e-05, "-", 1, "USD"],
    ["TOYOTA MOTOR CORP", 7203, "1", "2", 8.8, "-", 1, "JPY"],
    ["US DOLLAR", "-", "CASH_USD", "-", 0.16, "Unassigned", 1, "USD"],
    ["XAF FINANCIAL      DEC25", "XAFZ5", "-", "-", -0.0049, "-", 1, "USD"],
    [],
    ["Past performance, as of any day, is not a reliable indicator of future performance."],
    ["Distributor: nobody"],
]
SSGA = GroupHoldings(
    "ETF",
    "SPY",
    (
        Holding("NVDA", D("0.70830057"), "NVIDIA CORP"),
        Holding("BRK.B", D("0.202"), "BERKSHIRE HATHAWAY INC CL B"),
        Holding("TRUE", D("6.3E-7"), "TRUECAR INC"),
        Holding("7203", D("0.088"), "TOYOTA MOTOR CORP"),
    ),
    None,
    date(2025, 11, 18),
    (
        SkippedRow(10, "-", "US DOLLAR", D("0.0016"), "cash"),
        SkippedRow(11, "XAFZ5", "XAF FINANCIAL DEC25", D("-0.000049"), "futures"),
    ),
)


def test_a_workbook_of_ssga(tmp_path: Path) -> None:
    note = "x.xlsx: listed abroad, where no suffix is known, and kept as the vendor writes them: 7203."
    reading = read(tmp_path, workbook(*SSGA_LINES), "x.xlsx")
    assert (reading.groups, reading.errors, notes(reading, tmp_path)) == ((SSGA,), (), [note])


def test_plain_forms_in_a_workbook(tmp_path: Path) -> None:
    lines: list[list[object]] = [["symbol", "weight"], ["NAN", 0.25], [True, 0.75], ["X"]]
    held = (Holding("NAN", D("0.25")), Holding("TRUE", D("0.75")), Holding("X"))
    assert read(tmp_path, workbook(*lines), "etf_A.xlsx") == PathContents((GroupHoldings("ETF", "A", held),))
    sectors = workbook(["symbol", "sector", "industry"], ["XOM", "Energy"])
    assert read(tmp_path, sectors, "sectors.xlsx") == PathContents((ENERGY,))


def ishares(*rows: str, weight: str = "Weight (%)") -> str:
    return "\n".join(["Some Fund", 'Fund Holdings as of,"Nov 18, 2025"', f"Ticker,Name,Asset Class,{weight}", *rows])


EQUITY, CASH = "JPM,JPMORGAN CHASE & CO,Equity,1.46", "JPM,CASH COLLATERAL USD JPM,Cash Collateral and Margins,0.00"


@pytest.mark.parametrize("rows", [(EQUITY, CASH), (CASH, EQUITY)])
def test_a_ticker_twice_keeps_the_stock(tmp_path: Path, rows: tuple[str, str]) -> None:
    reading = read(tmp_path, ishares(*rows), "etf_IVV.csv")
    (group,) = reading.groups
    assert group.holdings == (Holding("JPM", D("0.0146"), "JPMORGAN CHASE & CO"),)
    assert [(each.name, each.reason) for each in group.left_out] == [("CASH COLLATERAL USD JPM", "collateral")]
    assert notes(reading, tmp_path) == ["etf_IVV.csv: the weights sum to 1.46 %; see that the file is whole."]


def test_nothing_needs_to_be_right_of_a_row_that_is_left_out(tmp_path: Path) -> None:
    (group,) = read(tmp_path, ishares("A,x,Equity,100", 'A B\x07,y,Futures,"1,024.5"'), "etf_X.csv").groups
    assert group.left_out == (SkippedRow(5, "A B\x07", "y", None, "futures"),)


def test_of_a_stock_twice_the_heaviest_row_counts(tmp_path: Path) -> None:
    rows = [f"{ticker},{ticker} {weight},Equity,{weight}" for ticker, weight in (
        ("A", "0.00"), ("BRKB", "-"), ("A", "60"), ("C", "1"), ("BRK/B", "38"), ("C", "1"), ("A", "-"),
    )]  # fmt: skip
    (group,) = read(tmp_path, ishares(*rows), "etf_X.csv").groups
    assert group.holdings == (
        Holding("A", D("0.60"), "A 60"),
        Holding("BRK.B", D("0.38"), "BRK/B 38"),
        Holding("C", D("0.01"), "C 1"),
    )
    assert group.left_out == (
        SkippedRow(4, "A", "A 0.00", D("0.0000"), "A is on line 6 too, and not lighter"),
        SkippedRow(5, "BRKB", "BRKB -", None, "BRK.B is on line 8 too, and not lighter"),
        SkippedRow(9, "C", "C 1", D("0.01"), "C is on line 7 too, and not lighter"),
        SkippedRow(10, "A", "A -", None, "A is on line 6 too, and not lighter"),
    )


@pytest.mark.parametrize(
    ("header", "written", "stated", "fraction"),
    [
        ("Weight (%)", "0.9", None, "0.009"),
        ("Weight(%)", "0.9", None, "0.009"),
        ("Weight %", "90", None, "0.9"),
        ("Weight", "90", None, "0.9"),
        ("Weight", "0.9", None, "0.9"),
        ("Weight", "0.9%", None, "0.009"),
        ("Weight", "0.1", "percent", "0.001"),
        ("Weight (%)", "0.9", "fraction", "0.9"),
    ],
)
def test_the_unit_of_a_vendors_weights(
    tmp_path: Path, header: str, written: str, stated: str | None, fraction: str
) -> None:
    reading = read(tmp_path, ishares(f"A,x,Equity,{written}", weight=header), weights=stated)
    assert [each.weight for each in reading.groups[0].holdings] == [D(fraction)]


def test_vendors_that_write_percent_without_saying_so(tmp_path: Path) -> None:
    lines = [*SSGA_LINES[:5], ["NVIDIA CORP", "NVDA", "1", "2", 7.83, "-", 1, "USD"]]
    reading = read(tmp_path, workbook(*lines), "x.xlsx")
    assert reading.groups[0].holdings == (Holding("NVDA", D("0.0783"), "NVIDIA CORP"),)
    assert notes(reading, tmp_path) == ["x.xlsx: the weights sum to 7.83 %; see that the file is whole."]
    lines[-1][4] = 0.98
    assert read(tmp_path, workbook(*lines), "x.xlsx").groups[0].holdings[0].weight == D("0.98")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ishares("A,x,Equity,1", "B,x,Equity"), ", line 5: has 3 fields where the header has 4; a field with a comma needs quotes."),
        (ishares("A,x,Equity,seven"), ", line 4: weight 'seven' is not a number such as 0.065, 6.5 or 6.5%."),
        (ishares('A,x,Equity,"7,82"'), ", line 4: weight '7,82' is not a number such as 0.065, 6.5 or 6.5%."),
        (ishares("A,x,Equity,1000"), ", line 4: weight 1000 is not between -1000 and 1000 percent."),
        (ishares("A\x07,x,Equity,1"), ", line 4: symbol 'A\\x07' is not 1 to 50 characters without white space."),
        (ishares("A,x,Equity,50%", "B,y,Equity,50"), ": some weights have a percent sign and others have none."),
        (ishares("A,x,Equity,7", weight="Weight"), ": the weights sum to 7, neither near 1 nor near 100; say which they are with --weights fraction or --weights percent."),
        (ishares(), ": has a header and no rows; an empty file does not empty a group."),
        (ishares("USD,USD CASH,Cash,1", "EUR,EUR CASH,Cash,1", "T,T 4,Fixed Income,98"), ": holds no stocks; all rows were left out: 2 cash, 1 bond."),
        ("Some Fund\nName,Sector,Asset Class,Weight (%),CUSIP,ISIN\nT 4,x,Fixed Income,1,2,3\n", ", line 2: lists bonds or the like, without tickers; only stocks are loaded."),
        ("Date,SPY,SUM\n2020-01-01,1,1\n", f", line 1: the columns 'Date,SPY,SUM' {COLUMNS}"),
        ('[\n {"ticker": "A"}\n]', f", line 1: the columns '[' {COLUMNS}"),
        ("x\n" * 60 + ishares("A,x,Equity,100"), f", line 1: the columns 'x' {COLUMNS}"),
        (ishares("A,x,Equity,1", '"B,x,Equity,1'), ", line 5: the row that begins here is not CSV; unexpected end of data (a double quote is never closed)."),
    ],
)  # fmt: skip
def test_what_a_vendors_file_may_not_be(tmp_path: Path, content: str, message: str) -> None:
    assert errors(read(tmp_path, content), tmp_path) == [f"etf_SPY.csv{message}"]


def test_a_date_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    content = ishares("A,x,Equity,100").replace("Nov 18, 2025", "some day")
    reading = read(tmp_path, content, "etf_A_2025-01-31.csv")
    assert reading.groups == (GroupHoldings("ETF", "A", (Holding("A", D(1), "x"),), None, date(2025, 1, 31)),)
    assert notes(reading, tmp_path) == ["etf_A_2025-01-31.csv: 'as of some day' is not a date that is known here."]
    assert read(tmp_path, ishares("A,x,Equity,100").replace('"Nov 18, 2025"', "-")).groups[0].as_of is None


def test_a_file_cut_off_anywhere_is_an_error_or_a_shorter_whole(tmp_path: Path) -> None:
    content = (SAMPLES / "ishares.csv").read_bytes()
    footer = content.index(b'\n\xc2\xa0\n"The')
    for cut in random.Random(7).sample(range(content.index(b'"NVDA"'), len(content)), 300):
        reading = read(tmp_path, content[:cut], "etf_IVV.csv")
        *_, last = csv.reader(content[:cut].decode(errors="replace").splitlines())
        assert bool(reading.errors) or len(last) == 15 or cut > footer, cut
        for group in reading.groups:
            assert group.holdings == ISHARES.holdings[: len(group.holdings)]


def vendor_file(name: str) -> Path:
    return Path(VENDOR_FILES or "") / name


def published(name: str, *, sign: str = "") -> list[list[str]]:
    """The rows of a vendor's CSV, in the plainest way to read them."""
    with vendor_file(name).open(encoding="utf-8-sig", newline="") as file:
        return [[value.strip().removesuffix(sign) for value in row] for row in csv.reader(file)]


def sheet(name: str) -> list[list[str]]:
    """The rows of a workbook's first sheet, by its XML alone."""
    with zipfile.ZipFile(vendor_file(name)) as archive:
        strings = ["".join(part.itertext()) for part in ET.fromstring(archive.read("xl/sharedStrings.xml"))]
        lines = ET.fromstring(archive.read("xl/worksheets/sheet1.xml")).findall(".//{*}row")
    cells = [[(cell.get("t"), "".join(cell.itertext())) for cell in line] for line in lines]
    return [[strings[int(text)] if kind == "s" and text else text for kind, text in line] for line in cells]


def loaded(name: str) -> tuple[GroupHoldings, dict[str, Decimal | None]]:
    reading = read_paths([vendor_file(name)])
    assert (reading.errors, reading.notes) == ((), ())
    (group,) = reading.groups
    return group, {holding.symbol: holding.weight for holding in group.holdings}


@pytest.mark.skipif(not VENDOR_FILES, reason="TEST_VENDOR_FILES names no folder")
def test_files_that_vendors_did_publish() -> None:
    group, weights = loaded("IVV_holdings_2025-11-18.csv")
    rows = [row for row in published("IVV_holdings_2025-11-18.csv") if len(row) == 15]
    stocks = [row for row in rows if row[3] == "Equity"]
    dotted = {"BRKB": "BRK.B", "BFB": "BF.B"}
    assert weights == {dotted.get(row[0], row[0]): D(row[5]) / 100 for row in stocks}
    assert (len(weights), weights["JPM"], sum(D(row[5]) for row in stocks)) == (503, D("0.0146"), D("99.69"))
    assert (group.type, group.name, group.as_of) == ("ETF", "IVV", date(2025, 11, 18))
    assert [(each.ticker, each.reason) for each in group.left_out] == [
        ("XTSLA", "money market"),
        ("USD", "cash"),
        ("SGAFT", "collateral"),
        ("JPM", "collateral"),
        ("ESZ5", "futures"),
    ]
    assert len(rows) == 1 + len(group.holdings) + len(group.left_out)

    group, weights = loaded("holdings-daily-us-en-spy_2025-11-18.xlsx")
    rows = [row for row in sheet("holdings-daily-us-en-spy_2025-11-18.xlsx") if row[7:] and row[7] == "USD"]
    stocks = [row for row in rows if row[1] != "-"]
    assert weights == {row[1]: D(row[4]) / 100 for row in stocks}
    assert (len(weights), sum(D(row[4]) for row in stocks)) == (503, D("99.843895"))
    assert (group.type, group.name, group.as_of) == ("ETF", "SPY", date(2025, 11, 18))
    assert group.left_out == (SkippedRow(172, "-", "US DOLLAR", D("0.0010759"), "cash"),)

    group, weights = loaded("QQQ_holdings_2020-07-02.csv")
    stocks = published("QQQ_holdings_2020-07-02.csv")[1:]
    assert weights == {row[2]: D(row[5]) / 100 for row in stocks}
    assert (len(weights), sum(D(row[5]) for row in stocks)) == (103, D("99.998"))
    assert (group.type, group.name, group.as_of, group.left_out) == ("ETF", "QQQ", date(2020, 7, 2), ())

    group, weights = loaded("ARK_INNOVATION_ETF_ARKK_HOLDINGS_raw.csv")
    stocks = [row for row in published("ARK_INNOVATION_ETF_ARKK_HOLDINGS_raw.csv", sign="%")[1:] if row[3:] and row[3]]
    assert weights == {row[3].removesuffix(" UW"): D(row[7]) / 100 for row in stocks}
    assert (len(weights), sum(D(row[7]) for row in stocks)) == (35, D("99.84"))
    assert (group.type, group.name, group.as_of) == ("ETF", "ARKK", date(2024, 6, 4))
    assert group.left_out == (SkippedRow(36, "", "GOLDMAN FS TRSY OBLIG INST 468", D("0.0018"), "money market"),)

    (june, before), (october, after) = loaded("qqq_2025-06-05.csv"), loaded("qqq_2025-10-04.csv")
    assert before == {row[0]: D(row[2]) / 100 for row in published("qqq_2025-06-05.csv")[1:]}
    assert after == {row[1]: D(row[3]) / 100 for row in published("qqq_2025-10-04.csv")[1:]}
    assert (len(before), len(after), june.left_out, october.left_out) == (101, 101, (), ())
    assert (june.name, june.as_of, october.name, october.as_of) == ("QQQ", date(2025, 6, 5), "QQQ", date(2025, 10, 4))

    constituents = published("sp500_constituents_2025-08-12.csv")[1:]
    (group,) = read_paths(
        [vendor_file("sp500_constituents_2025-08-12.csv")], group_type="UNIVERSE", name="sp500"
    ).groups
    assert group.holdings == tuple(Holding(row[0], None, row[1], row[3]) for row in constituents)
    assert (len(group.holdings), group.as_of) == (503, date(2025, 8, 12))


@pytest.mark.skipif(not VENDOR_FILES, reason="TEST_VENDOR_FILES names no folder")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spy_holdings.csv.is-html-error-page", ", line 11: is a page of HTML or XML and not CSV; download it again."),
        ("sp500_constituents_2025-08-12.csv", f": its name does not tell what it holds; give --type and --name, or name it as one of {HINT}."),
    ],
)  # fmt: skip
def test_files_that_vendors_did_publish_and_that_hold_no_holdings(name: str, message: str) -> None:
    assert errors(read_paths([vendor_file(name)]), vendor_file("")) == [f"{name}{message}"]
