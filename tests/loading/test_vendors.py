from datetime import date
from pathlib import Path

import pytest

from graph.loading.files import FileErrors
from graph.loading.vendors import VendorRow, find_table, normalize_ticker, read_day


@pytest.mark.parametrize(
    ("ticker", "symbol"),
    [
        *((f"BRK{between}B", "BRK.B") for between in ("", ".", "-", "/", " ")),
        *((written, "BF.B") for written in ("BFB", "BF.B", "BF-B", "BF/B", "BF B")),
        ("BFA", "BF.A"),
        ("MOGA", "MOG.A"),
        ("HEIA", "HEI.A"),
        ("LENB", "LEN.B"),
        ("UHALB", "UHAL.B"),
        ("CWENA", "CWEN.A"),
        ("MKCV", "MKC.V"),
        ("BRK/B UN", "BRK.B"),
        ("TRMB UW", "TRMB"),
        ("RDS A", "RDS.A"),
        # whole symbols that end as classes do
        *(
            (whole, whole)
            for whole in ("GOOGL", "GOOG", "FOXA", "NWSA", "CMCSA", "HUBB", "META", "V", "A", "LEN", "BF")
        ),
        *((whole, whole) for whole in ("UHAL", "PSA", "LSXMA", "LBRDA", "RUSHB", "BELFB", "BATRA", "WLYB", "BRKR")),
        *((word, word) for word in ("NA", "TRUE", "CASH", "USD", "7203")),
    ],
)
def test_classes_of_shares_have_a_dot(ticker: str, symbol: str) -> None:
    assert normalize_ticker(ticker) == (symbol, True)
    assert normalize_ticker(symbol) == (symbol, True)


@pytest.mark.parametrize(
    ("ticker", "exchange", "symbol"),
    [
        ("BRKB", "New York Stock Exchange Inc.", "BRK.B"),
        ("AAPL", "NASDAQ", "AAPL"),
        ("CBOE", "Cboe BZX", "CBOE"),
        ("UUUU", "Nyse Mkt Llc", "UUUU"),
        ("PINK", "Non-Nms Quotation Service (Nnqs)", "PINK"),
        ("GONE", "NO MARKET (E.G. UNLISTED)", "GONE"),
        ("GCI", "-", "GCI"),
        ("7203", "Tokyo Stock Exchange", "7203.T"),
        ("BP.", "London Stock Exchange", "BP.L"),
        ("BT.A", "London Stock Exchange", "BT-A.L"),
        ("CRDA", "London Stock Exchange", "CRDA.L"),
        ("SAN", "Nyse Euronext - Euronext Paris", "SAN.PA"),
        ("SAN", "Bolsa De Madrid", "SAN.MC"),
        ("ASML", "Euronext Amsterdam", "ASML.AS"),
        ("SAP", "Xetra", "SAP.DE"),
        ("NESN", "SIX Swiss Exchange", "NESN.SW"),
        ("ENI", "Borsa Italiana", "ENI.MI"),
        ("VOLV B", "Nasdaq Omx Nordic", "VOLV-B.ST"),
        ("NOVO B", "Omx Nordic Exchange Copenhagen A/S", "NOVO-B.CO"),
        ("NOKIA", "Nasdaq Omx Helsinki Ltd.", "NOKIA.HE"),
        ("RCI.B", "Toronto Stock Exchange", "RCI-B.TO"),
        ("ALL", "Asx - All Markets", "ALL.AX"),
        ("700", "Hong Kong Exchanges And Clearing Ltd", "0700.HK"),
        ("600519", "Shanghai Stock Exchange", "600519.SS"),
        ("2330", "Taiwan Stock Exchange", "2330.TW"),
        ("5274", "Gretai Securities Market", "5274.TWO"),
        ("005930", "Korea Exchange (Stock Market)", "005930.KS"),
        ("247540", "Korea Exchange (Kosdaq)", "247540.KQ"),
        ("532483", "Bse Ltd", "532483.BO"),
        ("RELIANCE", "National Stock Exchange Of India", "RELIANCE.NS"),
        ("PETR4", "XBSP", "PETR4.SA"),
        ("WALMEX*", "Bolsa Mexicana De Valores", "WALMEX.MX"),
        ("6301 JP", "", "6301.T"),
        ("DSY FP", "", "DSY.PA"),
    ],
)
def test_a_stock_listed_abroad_has_the_suffix_of_its_market(ticker: str, exchange: str, symbol: str) -> None:
    assert normalize_ticker(ticker, exchange) == (symbol, True)


@pytest.mark.parametrize(
    ("ticker", "exchange", "currency"),
    [("ECOPETROL", "Bolsa De Valores De Colombia", ""), ("7203", "", "JPY"), ("BRKB", "-", "CAD")],
)
def test_where_the_market_is_not_known_a_ticker_stays(ticker: str, exchange: str, currency: str) -> None:
    assert normalize_ticker(ticker, exchange, currency) == (ticker, False)
    assert normalize_ticker("A B", exchange, currency) == ("A.B", False)


@pytest.mark.parametrize(
    "written",
    [
        *("Nov 8, 2025", "November 8, 2025", "08-Nov-2025", "8/Nov/2025", "8 November 2025"),
        *("11/08/2025", "11/8/2025", "2025-11-08", "2025.11.08", "20251108", " Nov  08,2025 "),
    ],
)
def test_dates_as_vendors_write_them(written: str) -> None:
    assert read_day(written) == date(2025, 11, 8)


@pytest.mark.parametrize("written", ["", "-", "18/11/2025", "2025-02-30", "11/08/25", "Q3 2025", "today", "8" * 5000])
def test_what_is_no_date(written: str) -> None:
    assert read_day(written) is None


def vendor_rows(*lines: str, header: str = "Ticker,Name,Weight") -> tuple[list[VendorRow], FileErrors]:
    errors = FileErrors(Path("file"))
    found = find_table(errors, [(1, header.split(","))])
    assert found
    table, rest = found
    assert rest == []
    return list(table.vendor_rows((number, line.split(",")) for number, line in enumerate(lines, 2))), errors


@pytest.mark.parametrize(
    ("ticker", "name", "reason"),
    [
        ("-", "US DOLLAR", "cash"),
        ("USD", "U.S. Dollar", "cash"),
        ("USD", "USD CASH", "cash"),
        ("CASH_EUR", "whatever", "cash"),
        ("", "Cash", "cash"),
        ("", "Cash & Other", "cash"),
        ("", "Cash/Receivables", "cash"),
        ("", "Net Other Assets", "cash"),
        ("EUR", "EURO CURRENCY", "cash"),
        ("JPM", "CASH COLLATERAL USD JPM", "collateral"),
        ("-", "SSI US GOV MONEY MARKET CLASS", "money market"),
        ("", "GOLDMAN FS TRSY OBLIG INST 468", "money market"),
        ("AGPXX", "Invesco Treasury Fund", "money market"),
        ("---", "CMT MARKET LIQUIDITY", "money market"),
        ("B", "United States Treasury Bill", "bond"),
        ("ESZ5", "S+P500 EMINI FUT  DEC25", "futures"),
        ("XAFZ5", "XAF FINANCIAL      DEC25", "futures"),
        ("SWP", "TOTAL RETURN SWAP NVDA", "swap"),
        ("SPXW 250117C05900000", "SPX", "option"),
        ("ADRO", "ADURO BIOTECH CVR", "contingent value right"),
        ("X", "Contingent Value Rights of X", "contingent value right"),
        ("X", "CONTRA ABIOMED", "escrow"),
        ("X", "X Inc Escrow", "escrow"),
        ("XW", "X CORP WARRANTS", "warrant"),
        ("XW", "X CORP WT EXP 1/1/2030", "warrant"),
        ("XR", "X CORP RTS", "right"),
        ("XR", "Subscription Rights", "right"),
        ("NAN", "whatever", "no ticker"),
        ("#N/A", "whatever", "no ticker"),
        ("--", "whatever", "no ticker"),
        # stocks whose names or symbols are near to those
        ("CASH", "PATHWARD FINANCIAL INC", ""),
        ("FCFS", "FIRSTCASH HOLDINGS INC", ""),
        ("CSH", "CASH AMERICA INTERNATIONAL", ""),
        ("CVI", "CVR ENERGY INC", ""),
        ("UAN", "CVR Partners LP", ""),
        ("LQDT", "LIQUIDITY SERVICES INC", ""),
        ("DG", "DOLLAR GENERAL CORP", ""),
        ("FWRD", "FORWARD AIR CORP", ""),
        ("OPCH", "OPTION CARE HEALTH INC", ""),
        ("BFAM", "BRIGHT HORIZONS FAMILY SOLUTIONS", ""),
        ("WTI", "W&T OFFSHORE INC", ""),
        ("3036", "WT MICROELECTRONICS CO LTD", ""),
        ("CNTR", "CONTRAFECT CORP", ""),
        ("TWE", "TREASURY WINE ESTATES LTD", ""),
        ("GOV", "GOVERNMENT PROPERTIES INCOME TRUST", ""),
        ("GEMI", "GEMINI SPACE STATION INC", ""),
        ("NOK", "NOKIA OYJ", ""),
        ("BN4", "KEPPEL LTD", ""),
        ("NA", "NANO LABS LTD", ""),
        ("TRUE", "TRUECAR INC", ""),
    ],
)
def test_names_tell_what_is_no_stock(ticker: str, name: str, reason: str) -> None:
    ((entry,), errors) = vendor_rows(f"{ticker},{name},1")
    assert (entry.reason, errors.all()) == (reason, ())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("Equity", ""),
        ("-", "cash"),
        ("Cash", "cash"),
        ("Cash and/or Derivatives", "cash"),
        ("Cash Collateral and Margins", "collateral"),
        ("Money Market", "money market"),
        ("Futures", "futures"),
        ("FX", "currency"),
        ("FX Forwards", "currency"),
        ("Swaps", "swap"),
        ("Options", "option"),
        ("Fixed Income", "bond"),
        ("Rights", "right"),
        ("Warrants", "warrant"),
        ("Alternative", "other asset"),
        ("Common Stock", ""),
        ("American Depository Receipt", ""),
        ("Real Estate Investment Trust", ""),
        ("Limited Partnership", ""),
    ],
)
def test_the_vendors_word_for_a_kind_goes_before_the_name(kind: str, reason: str) -> None:
    ((entry,), errors) = vendor_rows(f"FCFS,CASH,{kind},1", header="Ticker,Name,Asset Class,Weight (%)")
    assert (entry.reason, errors.all()) == (reason, ())


@pytest.mark.parametrize(
    ("written", "weight", "reason"),
    [
        ("7.82", "7.82", ""),
        ("7.82%", "7.82%", ""),
        ("-", "", ""),
        ("--", "", ""),
        ("n/a", "", ""),
        ("", "", ""),
        ("<0.01%", "0%", ""),
        ("< .01", "0", ""),
        ("-0.00", "-0.00", ""),
        ("-0.00%", "-0.00%", ""),
        ("-0.02", "-0.02", "short position"),
        ("<5%", "<5%", ""),
    ],
)
def test_weights_as_vendors_write_them(written: str, weight: str, reason: str) -> None:
    ((entry,), errors) = vendor_rows(f"A,x,{written}")
    assert (entry.weight, entry.reason, errors.all()) == (weight, reason, ())


def test_one_file_is_of_one_fund_and_one_day() -> None:
    lines = ("ARKK,x,A,1,06/04/2024", "ARKW,x,B,1,06/04/2024", "ARKK,x,C,1,06/05/2024", "ARKK,x,D,1,soon", ",x,E,1,")
    _, errors = vendor_rows(*lines, header="fund,company,ticker,weight (%),date")
    assert [str(error) for error in errors.all()] == [
        "file, line 3: is of fund 'ARKW', other rows of ARKK; split the file.",
        "file, line 4: is of 2024-06-05, other rows of 2024-06-04; split the file.",
        "file, line 5: date 'soon' is not a date such as 2025-11-18 or 11/18/2025.",
    ]


def test_a_row_that_is_cut_off_is_no_footer() -> None:
    held, errors = vendor_rows(
        "AAPL,Apple Inc,1",
        "The text below the table",
        "Disclosures",
        "A sentence without quotes that goes on for quite a while after its beginning, and has commas",
        "MSFT,Micros",
        "NVDA",
        "BRK,Berkshire, Inc.,1",
    )
    assert [entry.symbol for entry in held] == ["AAPL"]
    assert [str(error) for error in errors.all()] == [
        "file, line 6: has 2 fields where the header has 3; a field with a comma needs quotes.",
        "file, line 7: has 1 fields where the header has 3; a field with a comma needs quotes.",
        "file, line 8: has 4 fields where the header has 3; a field with a comma needs quotes.",
    ]
