import gzip
import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from test_holdings import (
    COLUMNS,
    ENERGY,
    HEALTH,
    HINT,
    ISHARES,
    PLAIN,
    SAMPLES,
    SECTORS,
    SPY,
    SSGA_LINES,
    errors,
    ishares,
    notes,
    read,
    workbook,
    write,
)

from graph.loading.discovery import PathContents, read_paths
from graph.loading.holdings import GroupHoldings, Holding

D = Decimal


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
    assert read(tmp_path, "symbol,weight\nA,1\n", file) == PathContents((GroupHoldings(*group, (Holding("A", D(1)),)),))


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
    assert reading == PathContents((GroupHoldings(*group, (Holding("A", D(1)),)),))


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
        "ohlcv_daily.csv.gz: is empty.",
        "theme_x.csv: is not a file.",
    ]
    assert notes(reading, tmp_path) == [
        "README.md: left out; its name does not tell a group.",
        "more: left out; its name does not tell a group.",
    ]


def test_one_group_from_two_files_is_an_error_and_the_first_stays(tmp_path: Path) -> None:
    write(tmp_path, {"theme_a_b.csv": "symbol,weight\nA,\n", "theme_a b.csv": "symbol,weight\nB,\n"})
    reading = read_paths([tmp_path, tmp_path / "theme_a_b.csv"])
    assert reading.groups == (GroupHoldings("THEME", "a_b", (Holding("B"),)),)
    assert [str(error).replace(f"{tmp_path}/", "") for error in reading.errors] == [
        "theme_a_b.csv: THEME a_b is in theme_a b.csv too; keep one.",
        "theme_a_b.csv: THEME a_b is in theme_a b.csv too; keep one.",
    ]


def test_a_group_may_be_there_for_several_days_and_comes_in_their_order(tmp_path: Path) -> None:
    fund = (SAMPLES / "list.csv").read_bytes()
    write(tmp_path, {f"qqq_{day}.csv": fund for day in ("2025-10-04", "2024-12-31", "2025-06-05")})
    write(tmp_path, {"theme_x.csv": "symbol,weight\nA,\n", "theme_x_2025-01-01.csv": "symbol,weight\nA,\n"})
    write(tmp_path, {"sectors_2025-01-01.csv": SECTORS, "sectors_2024-01-01.csv": SECTORS})

    reading = read_paths([tmp_path, tmp_path / "qqq_2025-06-05.csv"])

    days = [(group.name, str(group.as_of)) for group in reading.groups]
    assert days == [
        ("QQQ", "2024-12-31"),
        ("QQQ", "2025-06-05"),
        ("QQQ", "2025-10-04"),
        ("energy", "2024-01-01"),
        ("energy", "2025-01-01"),
        ("health_care", "2024-01-01"),
        ("health_care", "2025-01-01"),
        ("x", "None"),
    ]
    assert [str(error).replace(f"{tmp_path}/", "") for error in reading.errors] == [
        "theme_x_2025-01-01.csv: THEME x is in theme_x.csv too; keep one.",
        "qqq_2025-06-05.csv: ETF QQQ is in qqq_2025-06-05.csv too; keep one.",
    ]


def test_a_day_that_is_stated_goes_before_any_other(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "groups.csv": "name,type,as_of,file\nspx,UNIVERSE,2024-01-01,list.csv\nIVV,ETF,,ivv_2020-01-01.csv\n",
            "list.csv": "symbol,weight\nA,\n",
            "ivv_2020-01-01.csv": (SAMPLES / "ishares.csv").read_bytes(),
        },
    )
    day = date(2025, 12, 31)
    assert [group.as_of for group in read_paths([tmp_path]).groups] == [date(2024, 1, 1), date(2025, 11, 18)]
    assert [group.as_of for group in read_paths([tmp_path], as_of=day).groups] == [day, day]
    write(tmp_path, {"etf_A_2024-01-01.csv": PLAIN, "etf_A_2024-01-02.csv": PLAIN})
    reading = read_paths([tmp_path / "etf_A_2024-01-01.csv", tmp_path / "etf_A_2024-01-02.csv"], as_of=day)
    assert [(group.name, group.as_of) for group in reading.groups] == [("A", day)]
    assert [str(error).replace(f"{tmp_path}/", "") for error in reading.errors] == [
        "etf_A_2024-01-02.csv: ETF A is in etf_A_2024-01-01.csv too; keep one."
    ]


def test_an_index_may_list_a_group_for_several_days(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "groups.csv": (
                "name,type,as_of,file\n"
                "SPY,ETF,2025-02-01,b.csv\n"
                "SPY,ETF,2025-01-01,a.csv\n"
                "SPY,ETF,,spy_2024-01-01.csv\n"
                "SPY,ETF,2025-02-01,a.csv\n"
                "SPY,ETF,2025-02-01,b.csv\n"
            ),
            "a.csv": PLAIN,
            "b.csv": PLAIN,
            "spy_2024-01-01.csv": PLAIN,
        },
    )
    reading = read_paths([tmp_path])
    assert [str(group.as_of) for group in reading.groups] == ["2024-01-01", "2025-01-01", "2025-02-01"]
    assert [str(error).replace(f"{tmp_path}/", "") for error in reading.errors] == [
        "a.csv: ETF SPY is in b.csv too; keep one.",
        "groups.csv, line 6: ETF SPY is on line 2 too.",
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
            "broken.csv": "\0",
            "AAPL.csv": "Date,Close\n2024-03-01,1\n",
            "prices_of_march.csv": "date,symbol,close\n2024-03-01,A,1\n",
        },
    )
    reading = read_paths([tmp_path])
    assert (reading.groups, reading.errors) == (
        (
            GroupHoldings("ETF", "Spy", SPY.holdings, "The S&P, 500", date(2025, 11, 18)),
            GroupHoldings("UNIVERSE", "spx", SPY.holdings),
            GroupHoldings("SECTOR", "health_care", HEALTH.holdings, "Doctors and drugs"),
            GroupHoldings("THEME", "clean_energy", (Holding("FSLR"),)),
        ),
        (),
    )
    assert notes(reading, tmp_path) == [
        "groups.csv, line 3: says '4' members; etf_SPY.csv holds 3.",
        "sectors.csv: sector Energy left out; groups.csv does not list it.",
        "broken.csv: left out; groups.csv does not list it.",
        "etf_QQQ.csv: left out; groups.csv does not list it.",
    ]
    assert [(file.path.name, file.symbol) for file in reading.prices] == [
        ("AAPL.csv", "AAPL"),
        ("prices_of_march.csv", None),
    ]


@pytest.mark.parametrize("index", [{}, {"groups.csv": "name,type,file\nSPY,ETF,etf_SPY.csv\n"}])
def test_what_is_named_or_written_as_prices_does_not_vanish(tmp_path: Path, index: dict[str, str]) -> None:
    write(
        tmp_path,
        {
            **index,
            "etf_SPY.csv": PLAIN,
            "ohlcv_1.csv": "",
            "ohlcv_2.csv": "\0",
            "ohlcv_3.csv": "when,what\n1,2\n",
            "ohlcv_4.csv": "symbol,date,close\n",
            "ohlcv_5.csv.gz": gzip.compress(b"symbol,date,close\nA,2024-03-01,1\n")[:-8],
            "other.csv": "symbol,date,date,close\nA,2024-03-01,1,1\n",
            "prices.csv": "date,close\n2024-03-01,1\n",
            "time.csv": "time,open,high,low\n1,2,3,4\n",
        },
    )
    reading = read_paths([tmp_path])
    assert reading.groups == (SPY,)
    assert [file.path.name for file in reading.prices] == ["ohlcv_5.csv.gz"]
    said = [str(error).replace(f"{tmp_path}/", "") for error in reading.errors]
    assert said == [
        "ohlcv_1.csv: is empty.",
        "ohlcv_2.csv, line 1: holds a zero byte; this is not a text file.",
        said[2],
        "ohlcv_4.csv: has a header and no rows.",
        "other.csv, line 1: the column 'date' is there twice.",
        "prices.csv: its name does not tell whose prices it holds; give --name, or name it as AAPL.csv or yahoo_AAPL.csv.",
    ]
    assert said[2].startswith("ohlcv_3.csv, line 1: ")
    assert [note.split(":")[0].split(",")[0] for note in notes(reading, tmp_path)] == ["time.csv"]


def test_an_index_lists_no_prices(tmp_path: Path) -> None:
    index = "name,type,file\nSPY,ETF,spy.csv\n"
    write(tmp_path, {"groups.csv": index, "spy.csv": "date,close\n2024-03-01,1\n"})
    assert errors(read_paths([tmp_path]), tmp_path) == [
        "groups.csv, line 2: spy.csv holds prices, so no ETF; they need no row here."
    ]


@pytest.mark.parametrize(
    ("file", "symbol"),
    [
        ("yahoo_AAPL.csv", "AAPL"),
        ("nasdaq_aapl.csv.gz", "AAPL"),
        ("AAPL.csv", "AAPL"),
        ("AAPL_2024-03-08.csv", "AAPL"),
        ("AAPL-20230309-20240308.csv", "AAPL"),
        ("BRK-B.csv", "BRK.B"),
        ("yahoo_brk.b_2024-03-08.csv", "BRK.B"),
        ("BRKB.csv", "BRK.B"),
        ("7203.T.csv", "7203.T"),
        ("^GSPC.csv", "^GSPC"),
        ("ALL.csv", "ALL"),
    ],
)
def test_the_name_of_a_file_of_prices_tells_the_stock(tmp_path: Path, file: str, symbol: str) -> None:
    reading = read(tmp_path, "Date,Close\n2024-03-01,1\n", file)
    assert [each.symbol for each in reading.prices] == [symbol]


@pytest.mark.parametrize(
    "file", ["prices.csv", "data_2024-03-08.csv", "etf_SPY.csv", "AAPL (1).csv", "HistoricalData_1709.csv", "yahoo_.csv", "x"]
)  # fmt: skip
def test_names_that_tell_no_stock(tmp_path: Path, file: str) -> None:
    content = "Date,Close\n2024-03-01,1\n"
    assert errors(read(tmp_path, content, file), tmp_path) == [
        f"{file}: its name does not tell whose prices it holds; give --name, or name it as AAPL.csv or yahoo_AAPL.csv."
    ]
    (prices,) = read_paths([tmp_path / file], name=" brk-b ").prices
    assert prices.symbol == "BRK.B"


def test_options_that_mean_nothing_for_prices(tmp_path: Path) -> None:
    file = write(tmp_path, {"AAPL.csv": "Date,Close\n2024-03-01,1\n"}) / "AAPL.csv"
    assert errors(read_paths([file], group_type="ETF"), tmp_path) == ["AAPL.csv: holds prices, so it takes no --type."]
    assert errors(read_paths([file], name="A B\x07"), tmp_path) == [
        "AAPL.csv: symbol 'A.B\\x07' is not 1 to 50 characters without white space."
    ]
    file.write_text("symbol,date,close\nA,2024-03-01,1\n")
    assert errors(read_paths([file], name="A"), tmp_path) == [
        "AAPL.csv, line 1: has a column of symbols, so it takes no --name."
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
    assert errors(reading, tmp_path) == ["groups.csv: is the index of a folder; load the folder."]


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
        "etf_\udcff\x07.csv: name '\\udcff\\x07' is not 1 to 100 printable characters."
    ]


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    # root, who runs the tests in containers, may read everything
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert errors(read_paths([tmp_path]), tmp_path.parent) == [f"{tmp_path.name}: cannot be read: Permission denied."]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("IVV_holdings_2025-11-17.csv", "IVV"),
        ("ivv-holdings.csv.gz", "IVV"),
        ("holdings-daily-us-en-spy.xlsx", "SPY"),
        ("holdings-daily-us-en-spy_2025-11-18 (2).xlsx", "SPY"),
        ("THE_3D_PRINTING_ETF_PRNT_HOLDINGS.csv", "PRNT"),
        ("qqq_20251004.csv", "QQQ"),
        ("qqq_2025-10-04.csv", "QQQ"),
        ("etf_Vti_2025-10-04.csv", "Vti"),
    ],
)
def test_the_names_of_vendors_files_tell_the_fund(tmp_path: Path, file: str, name: str) -> None:
    (group,) = read(tmp_path, ishares("A,x,Equity,100"), file).groups
    assert (group.type, group.name, group.as_of) == ("ETF", name, date(2025, 11, 18))


@pytest.mark.parametrize(
    "file", ["fund_holdings.csv", "my_fund_holdings.csv", "holdings.csv", "list_2025-10-04.csv", "x.csv"]
)
def test_names_that_tell_no_fund(tmp_path: Path, file: str) -> None:
    assert errors(read(tmp_path, ishares("A,x,Equity,100"), file), tmp_path) == [
        f"{file}: its name does not tell what it holds; give --type and --name, or name it as one of {HINT}."
    ]


def test_what_is_stated_goes_before_the_content_and_the_content_before_the_files_name(tmp_path: Path) -> None:
    content = (SAMPLES / "invesco.csv").read_bytes()

    def group(file: str, group_type: str | None = None, name: str | None = None) -> tuple[str, str]:
        (found,) = read_paths([write(tmp_path, {file: content}) / file], group_type=group_type, name=name).groups
        return found.type, found.name

    assert group("SPY_holdings.csv") == ("ETF", "QQQ")
    assert group("etf_qqq.csv") == ("ETF", "qqq")
    assert group("theme_tech.csv") == ("THEME", "tech")
    assert group("x.csv", "UNIVERSE") == ("UNIVERSE", "QQQ")
    assert group("x.csv", name="QQQM") == ("ETF", "QQQM")
    assert group("etf_SPY.csv", name="SPY") == ("ETF", "SPY")
    assert errors(read(tmp_path, content), tmp_path) == [
        "etf_SPY.csv: is named as SPY, and its content as QQQ; --name says which it is."
    ]


@pytest.mark.parametrize("file", ["x.csv", "sp500_constituents_2025-08-12.csv"])
def test_a_list_of_constituents_wants_a_name(tmp_path: Path, file: str) -> None:
    content = (SAMPLES / "constituents.csv").read_bytes()
    assert errors(read(tmp_path, content, file), tmp_path) == [
        f"{file}: its name does not tell what it holds; give --type and --name, or name it as one of {HINT}."
    ]


def test_a_folder_loads_what_vendors_published_into_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "IVV_holdings.csv": (SAMPLES / "ishares.csv").read_bytes(),
            "SPY.xlsx": workbook(*SSGA_LINES[:6], SSGA_LINES[9]),
            "QQQ_holdings.csv": "<!DOCTYPE html>",
            "aapl.csv": "Date,Open,High,Low,Close\n2024-03-01,1,1,1,1\n",
            "trades.csv": "when,what\n",
            "list.csv": "symbol,weight\nA,1\n",
        },
    )
    reading = read_paths([tmp_path])
    assert [group.name for group in reading.groups] == ["IVV", "SPY"]
    assert [file.symbol for file in reading.prices] == ["AAPL"]
    assert [str(error).replace(f"{tmp_path}/", "") for error in reading.errors] == [
        "QQQ_holdings.csv, line 1: is a page of HTML or XML and not CSV; download it again."
    ]
    assert notes(reading, tmp_path) == [
        "SPY.xlsx: the weights sum to 70.99 %; see that the file is whole.",
        f"list.csv: its name does not tell what it holds; give --type and --name, or name it as one of {HINT}. Left out.",
        f"trades.csv, line 1: the columns 'when,what' {COLUMNS} Left out.",
    ]


def test_an_index_names_what_vendors_published_and_may_say_of_when(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "groups.csv": (
                "name,type,as_of,members,file\n"
                "SPX,UNIVERSE,2024-01-01,9,ivv.csv\n"
                "list,THEME,,,list_2025-02-28.csv\n"
                "listed,THEME,2024-01-01,,list_2025-02-28.csv\n"
                "energy,SECTOR,2024-01-01,,sectors.csv\n"
                "bad,ETF,soon,,ivv.csv\n"
            ),
            "ivv.csv": (SAMPLES / "ishares.csv").read_bytes(),
            "list_2025-02-28.csv": "symbol,weight\nA,1\n",
            "sectors.csv": "symbol,sector\nXOM,Energy\n",
        },
    )
    reading = read_paths([tmp_path])
    held = (Holding("A", D(1)),)
    assert reading.groups == (
        GroupHoldings("UNIVERSE", "SPX", ISHARES.holdings, None, date(2025, 11, 18), ISHARES.left_out),
        GroupHoldings("THEME", "list", held, None, date(2025, 2, 28)),
        GroupHoldings("THEME", "listed", held, None, date(2024, 1, 1)),
        GroupHoldings("SECTOR", "energy", (Holding("XOM"),), None, date(2024, 1, 1)),
    )
    assert [str(error).replace(f"{tmp_path}/", "") for error in reading.errors] == [
        "groups.csv, line 6: as_of 'soon' is not a date such as 2025-11-18."
    ]
    assert notes(reading, tmp_path) == ["groups.csv, line 2: says '9' members; ivv.csv holds 8."]


def test_the_name_of_a_file_of_sectors_may_tell_its_day(tmp_path: Path) -> None:
    reading = read(tmp_path, "symbol,sector\nXOM,Energy\n", "sectors_2025-02-28.csv")
    assert [(group.name, group.as_of) for group in reading.groups] == [("energy", date(2025, 2, 28))]
