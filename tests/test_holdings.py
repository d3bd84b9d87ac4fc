import gzip
import os
from decimal import Decimal
from pathlib import Path
from typing import cast

import pytest

from graph.holdings import GroupHoldings, Holding, Reading, Unit, read_paths

D = Decimal


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, text in files.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def read(folder: Path, content: str | bytes, file: str = "etf_SPY.csv", weights: str | None = None) -> Reading:
    """Read one file with this content."""
    return read_paths([write(folder, {file: content}) / file], weights=cast("Unit | None", weights))


def errors(reading: Reading, folder: Path) -> list[str]:
    """The errors of a reading that gave nothing else, without the folder."""
    assert (reading.groups, reading.notes) == ((), ())
    return [str(error).replace(f"{folder}/", "") for error in reading.errors]


def notes(reading: Reading, folder: Path) -> list[str]:
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
    assert read(tmp_path, content) == Reading((SPY,))


def test_words_that_others_take_for_missing_are_symbols(tmp_path: Path) -> None:
    words = ["NA", "NAN", "NULL", "TRUE", "-", "1E5", "N/A"]
    reading = read(tmp_path, "symbol,weight\n" + "".join(f"{word},\n" for word in words))
    assert reading == Reading((GroupHoldings("ETF", "SPY", tuple(Holding(word) for word in words)),))


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


COLUMNS = "are neither of symbol,name,weight and symbol,sector,industry."


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
        (b"symbol,date,open,high,low,close,volume\n", ", line 1: holds prices, which are not loaded yet."),
        (b"Date,Open,High,Low,Close\n", ", line 1: holds prices, which are not loaded yet."),
        (b"PK\x03\x04\0\0\0", ", line 1: holds a zero byte; this is not a text file."),
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


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("etf_SPY.csv", ("ETF", "SPY")),
        ("ETF_Spy.CSV", ("ETF", "Spy")),
        ("etf_RSP.v2.csv.gz", ("ETF", "RSP.v2")),
        ("theme_Clean Energy & Water.csv", ("THEME", "clean_energy_water")),
        ("sector_Health-Care.csv", ("SECTOR", "health_care")),
        ("universe_Dow 30.csv", ("UNIVERSE", "Dow 30")),
        ("segment_large_cap.csv", ("SEGMENT", "large_cap")),
        ("custom_My_List.csv", ("CUSTOM", "My_List")),
        ("theme_Énergie.csv", ("THEME", "énergie")),
    ],
)
def test_the_name_of_a_file_tells_the_group(tmp_path: Path, file: str, group: tuple[str, str]) -> None:
    assert read(tmp_path, "symbol,weight\nA,1\n", file) == Reading((GroupHoldings(*group, (Holding("A", D(1)),)),))


@pytest.mark.parametrize(
    ("file", "group_type", "name", "group"),
    [
        ("holdings.csv", "etf", "SPY", ("ETF", "SPY")),
        ("etf_SPY.csv", "UNIVERSE", None, ("UNIVERSE", "SPY")),
        ("etf_SPY.csv", None, " My list ", ("ETF", "My list")),
        ("x", "THEME", "AI: Leaders", ("THEME", "ai_leaders")),
    ],
)
def test_options_name_the_group_of_one_file(
    tmp_path: Path, file: str, group_type: str | None, name: str | None, group: tuple[str, str]
) -> None:
    path = write(tmp_path, {file: "symbol,weight\nA,1\n"}) / file
    reading = read_paths([path], group_type=group_type, name=name)
    assert reading == Reading((GroupHoldings(*group, (Holding("A", D(1)),)),))


HINT = "etf_<NAME>.csv (theme_, universe_, segment_, custom_, sector_ likewise) or sectors.csv"


@pytest.mark.parametrize(
    ("file", "group_type", "name", "message"),
    [
        ("x.csv", None, None, f"its name does not tell what it holds; give --type and --name, or name it as one of {HINT}."),
        ("x.csv", "ETF", None, f"its name does not tell what it holds; give --type and --name, or name it as one of {HINT}."),
        ("etf_.csv", None, None, f"its name does not tell what it holds; give --type and --name, or name it as one of {HINT}."),
        ("sectors.csv", None, None, f"its name does not tell what it holds; give --type and --name, or name it as one of {HINT}."),
        ("x.csv", "FUND", "x", "type 'FUND' is none of ETF, THEME, SECTOR, SEGMENT, CUSTOM, UNIVERSE."),
        ("x.csv", "ETF", "x" * 101, f"name '{'x' * 99}…' is not 1 to 100 printable characters."),
        ("x.csv", "ETF", "a\nb", "name 'a\\nb' is not 1 to 100 printable characters."),
        ("theme_---.csv", None, None, "name '---' is not 1 to 100 printable characters."),
    ],
)  # fmt: skip
def test_a_file_that_no_name_or_option_tells(
    tmp_path: Path, file: str, group_type: str | None, name: str | None, message: str
) -> None:
    path = write(tmp_path, {file: "symbol,weight\nA,1\n"}) / file
    reading = read_paths([path], group_type=group_type, name=name)
    assert errors(reading, tmp_path) == [f"{file}: {message}"]


SECTORS = "symbol,sector,industry\nA,Health Care,Life Sciences\nXOM,Energy,\nUNH, health  care ,Managed Care\n"
ENERGY = GroupHoldings("SECTOR", "energy", (Holding("XOM"),), "Energy")
HEALTH = GroupHoldings(
    "SECTOR",
    "health_care",
    (Holding("A", industry="Life Sciences"), Holding("UNH", industry="Managed Care")),
    "Health Care",
)


def test_a_file_of_sectors_gives_a_group_for_each(tmp_path: Path) -> None:
    assert read(tmp_path, SECTORS, "sectors.csv") == Reading((ENERGY, HEALTH))
    assert read(tmp_path, SECTORS, "gics.csv") == Reading((ENERGY, HEALTH))
    assert read(tmp_path, "sector,symbol\nEnergy,XOM\n", "sectors.csv.gz") == Reading((ENERGY,))
    assert read_paths([tmp_path / "gics.csv"], group_type="sector") == Reading((ENERGY, HEALTH))


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


def test_a_folder_without_an_index_loads_what_its_files_names_tell(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "etf_SPY.csv": PLAIN,
            "etf_BAD.csv": "symbol,weight\nA,x\n",
            "sectors.csv": SECTORS,
            "ohlcv_daily.csv.gz": b"",
            "README.md": "",
            ".hidden.csv": "",
        },
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "theme_x.csv").mkdir()
    reading = read_paths([tmp_path])
    assert reading.groups == (SPY, ENERGY, HEALTH)
    assert [str(error).replace(f"{tmp_path}/", "") for error in reading.errors] == [
        "etf_BAD.csv, line 2: weight 'x' is not a number such as 0.065, 6.5 or 6.5%.",
        "theme_x.csv: is not a file.",
    ]
    assert notes(reading, tmp_path) == [
        "README.md: left out; its name does not tell a group.",
        "more: left out; its name does not tell a group.",
        "ohlcv_daily.csv.gz: left out; it holds prices, which are not loaded yet.",
    ]


def test_one_group_from_two_files_is_an_error_and_the_first_stays(tmp_path: Path) -> None:
    write(tmp_path, {"theme_a_b.csv": "symbol,weight\nA,\n", "theme_a b.csv": "symbol,weight\nB,\n"})
    reading = read_paths([tmp_path, tmp_path / "theme_a_b.csv"])
    assert reading.groups == (GroupHoldings("THEME", "a_b", (Holding("B"),)),)
    assert [str(error).replace(f"{tmp_path}/", "") for error in reading.errors] == [
        "theme_a_b.csv: THEME a_b is in theme_a b.csv too; keep one.",
        "theme_a_b.csv: THEME a_b is in theme_a b.csv too; keep one.",
    ]


def test_an_index_says_which_files_of_a_folder_count(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "groups.csv": (
                "name,type,description,as_of,members,file\n"
                'Spy,etf,"The S&P,  500",2025-11-18,3,etf_SPY.csv\n'
                "spx,UNIVERSE,,,4,etf_SPY.csv\n"
                "Health Care,SECTOR,Doctors and drugs,,,sectors.csv\n"
                "Clean Energy,THEME,,,,list.csv\n"
            ),
            "etf_SPY.csv": PLAIN,
            "list.csv": "symbol,weight\nFSLR,\n",
            "sectors.csv": SECTORS,
            "etf_QQQ.csv": PLAIN,
            "ohlcv_daily.csv": "",
        },
    )
    reading = read_paths([tmp_path])
    assert (reading.groups, reading.errors) == (
        (
            GroupHoldings("ETF", "Spy", SPY.holdings, "The S&P, 500"),
            GroupHoldings("UNIVERSE", "spx", SPY.holdings),
            GroupHoldings("SECTOR", "health_care", HEALTH.holdings, "Doctors and drugs"),
            GroupHoldings("THEME", "clean_energy", (Holding("FSLR"),)),
        ),
        (),
    )
    assert notes(reading, tmp_path) == [
        "groups.csv, line 3: says '4' members; etf_SPY.csv holds 3.",
        "sectors.csv: sector Energy left out; groups.csv does not list it.",
        "etf_QQQ.csv: left out; groups.csv does not list it.",
        "ohlcv_daily.csv: left out; it holds prices, which are not loaded yet.",
    ]


def test_faults_of_an_index_are_named_by_line_and_the_rest_loads(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "groups.csv": (
                "file,name,type\n"
                "etf_SPY.csv,SPY,ETF\n"
                "etf_GONE.csv,GONE,ETF\n"
                "etf_SPY.csv,SPY,FUND\n"
                "etf_SPY.csv,SPY,etf\n"
                ",X,ETF\n"
                "../etf_SPY.csv,X,ETF\n"
                "etf_SPY.csv,,ETF\n"
                "etf_X.csv,X\n"
                "sectors.csv,Energy,THEME\n"
                "sectors.csv,Utilities,SECTOR\n"
                "sectors.csv,energy,SECTOR\n"
                "etf_BAD.csv,BAD,ETF\n"
                "etf_BAD.csv,BAD,CUSTOM\n"
            ),
            "etf_SPY.csv": PLAIN,
            "etf_X.csv": PLAIN,
            "etf_BAD.csv": "symbol,weight\nA,x\n",
            "sectors.csv": SECTORS,
        },
    )
    reading = read_paths([tmp_path])
    assert reading.groups == (SPY, GroupHoldings("SECTOR", "energy", ENERGY.holdings))
    assert [str(error).replace(f"{tmp_path}/", "") for error in reading.errors] == [
        "etf_BAD.csv, line 2: weight 'x' is not a number such as 0.065, 6.5 or 6.5%.",
        "groups.csv, line 4: type 'FUND' is none of ETF, THEME, SECTOR, SEGMENT, CUSTOM, UNIVERSE.",
        "groups.csv, line 5: ETF SPY is on line 2 too.",
        "groups.csv, line 6: file '' is not the name of a file in this folder.",
        "groups.csv, line 7: file '../etf_SPY.csv' is not the name of a file in this folder.",
        "groups.csv, line 8: name '' is not 1 to 100 printable characters.",
        "groups.csv, line 9: has 2 fields where the header has 3; a field with a comma needs quotes.",
        "groups.csv, line 3: there is no file 'etf_GONE.csv' in the folder.",
        "groups.csv, line 10: sectors.csv holds sectors, so no THEME.",
        "groups.csv, line 11: sectors.csv holds no sector utilities.",
    ]
    assert notes(reading, tmp_path) == [
        "sectors.csv: sector Health Care left out; groups.csv does not list it.",
        "etf_X.csv: left out; groups.csv does not list it in a row without errors.",
    ]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", ": is empty."),
        ("name,type\nSPY,ETF\n", ", line 1: an index has the columns name,type,description,as_of,members,file."),
        ("name,type,file\n\0\n", ", line 2: holds a zero byte; this is not a text file."),
    ],
)
def test_a_folder_whose_index_cannot_be_read_loads_nothing(tmp_path: Path, index: str, message: str) -> None:
    write(tmp_path, {"groups.csv": index, "etf_SPY.csv": PLAIN})
    assert errors(read_paths([tmp_path]), tmp_path) == [f"groups.csv{message}"]


def test_an_index_alone_is_not_loaded(tmp_path: Path) -> None:
    reading = read(tmp_path, "name,type,description,as_of,members,file\n", "groups.csv")
    assert errors(reading, tmp_path) == ["groups.csv, line 1: is the index of a folder; load the folder."]


def test_options_for_one_file_do_not_go_with_more(tmp_path: Path) -> None:
    assert errors(read_paths([tmp_path], group_type="ETF"), tmp_path.parent) == [
        f"{tmp_path.name}: is a folder; --type and --name tell what one file holds."
    ]
    assert errors(read_paths([tmp_path, tmp_path], name="x"), tmp_path) == [
        "--type and --name tell what one file holds; load that file alone."
    ]


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    assert errors(read_paths([tmp_path / "gone.csv", tmp_path / "loop.csv", tmp_path / "pipe.csv"]), tmp_path) == [
        "gone.csv: cannot be read: No such file or directory.",
        "loop.csv: cannot be read: Too many levels of symbolic links.",
        "pipe.csv: is not a file.",
    ]
    (empty := tmp_path / "empty").mkdir()
    assert errors(read_paths([empty]), tmp_path) == [f"empty: nothing to load; files are told by their names: {HINT}."]
    assert errors(read_paths([]), tmp_path) == [
        f"No path was given: nothing to load; files are told by their names: {HINT}."
    ]


def test_names_of_files_that_no_text_can_hold(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"etf_\xff\x07.csv")).write_text("symbol,weight\nA,1\n")
    assert errors(read_paths([tmp_path]), tmp_path) == [
        "etf_??.csv: name '\\udcff\\x07' is not 1 to 100 printable characters."
    ]


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    # root, who runs the tests in containers, may read everything
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert errors(read_paths([tmp_path]), tmp_path.parent) == [f"{tmp_path.name}: cannot be read: Permission denied."]


def test_a_large_file_is_read_whole(tmp_path: Path) -> None:
    rows = "".join(f"S{number},Number {number},0.00005\n" for number in range(20_000))
    (group,) = read(tmp_path, "symbol,name,weight\n" + rows).groups
    assert len(group.holdings) == 20_000
    assert group.holdings[-1] == Holding("S19999", D("0.00005"), "Number 19999")
