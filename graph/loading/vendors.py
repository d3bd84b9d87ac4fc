"""Formats in which fund companies publish holdings: their columns, the rows that are stocks, the spelling of symbols.

Pure: rows of text in, vendor rows out. VENDOR_FORMATS has one item for each table that a vendor publishes.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import NamedTuple

from graph.loading.files import FileErrors, TextRow, quoted

_WEIGHT = r"weight ?(\(?%\)?)?"
_OPTIONAL = ("kind", "exchange", "currency", "industry", "fund", "day")


class VendorFormat(NamedTuple):
    """A table that a vendor publishes: regular expressions for the names of its columns, in lower case."""

    vendor: str
    symbol: str
    name: str
    weight: str | None = _WEIGHT
    """Column of weights; None if the table has none."""
    mark: str | None = None
    """A further column by which the table is recognized."""
    kind: str | None = None
    """Column of the kind of a holding, such as its asset class."""
    exchange: str | None = None
    currency: str | None = None
    """Column of the listing's currency."""
    industry: str | None = None
    fund: str | None = None
    """Column of the fund's own ticker."""
    day: str | None = None
    title: str | None = None
    """Pattern for the fund's own ticker in a line before the table."""
    percent: bool = False
    """True if the vendor publishes percent even if the header does not say so."""

    def columns(self, cells: Sequence[str]) -> dict[str, int] | None:
        """Return the index of each column if these cells are the names of this format's columns, else None."""
        names = [" ".join(cell.lower().split()) for cell in cells]
        indices = {}
        for role in ("symbol", "name", "weight", "mark", *_OPTIONAL):
            if pattern := getattr(self, role):
                index = next((index for index, name in enumerate(names) if re.fullmatch(pattern, name)), None)
                if index is not None:
                    indices[role] = index
                elif role not in _OPTIONAL:
                    return None
        return indices


VENDOR_FORMATS = (
    VendorFormat("iShares", "(issuer )?ticker", "name", mark="asset class", kind="asset class", exchange="exchange"),
    VendorFormat("SSGA", "ticker", "name", mark="sedol", currency="local currency", percent=True),
    VendorFormat(
        *("Invesco", "holdings? ticker", "name"),
        kind="class of shares",
        fund="fund ticker",
        day="date",
        percent=True,
    ),
    VendorFormat("Invesco", "ticker", "company", "% tna", kind="class of shares", percent=True),
    VendorFormat("Vanguard", "ticker", "holdings?", r"% of funds?\*?", title=r"\(([A-Z]{1,5})\)$", percent=True),
    VendorFormat("ARK", "ticker", "company", fund="fund", day="date"),
    VendorFormat("a list", "(issuer )?ticker|symbol", "name", kind="sector", exchange="exchange"),
    VendorFormat(
        "a list of constituents", "symbol", "security", None, mark="gics sector", industry="gics sub-industry"
    ),
)
"""Known formats; the first whose columns are all present is used."""

HEADER_WITHIN = 50
"""Number of first rows among which the header is searched."""
MAX_LABEL = 60
"""Maximum characters of a cell; a longer one is a sentence of a footer."""

# Kinds of holdings that are no stocks, by the vendor's word for the kind, else by the name of the holding.
_KINDS = (
    ("collateral", "collateral|margin"),
    ("futures", "futures?"),
    ("swap", "swaps?"),
    ("option", "options?"),
    ("currency", "fx|forwards?|currency|currencies"),
    ("money market", "money market|short-term reserves?"),
    ("cash", "cash"),
    ("bond", "fixed income|bonds?|treasury|bills?|notes?|debt|repurchase agreements?"),
    ("warrant", "warrants?"),
    ("right", "rights?"),
    ("other asset", "alternatives?|commodity|commodities|derivatives?|crypto.*|digital assets?"),
)
_REMNANTS = (
    ("contingent value right", r"\bCVRS?\b(?! (ENERGY|PARTNERS|REFINING|MEDICAL))|\bCONTINGENT VALUE\b"),
    ("escrow", r"\bESCROW\b|\bCONTRA\b|\bEARN-?OUT\b"),
    ("warrant", r"\bWARRANTS?\b|(?<=\w )WTS?( EXP\b.*)?$"),
    ("right", r"\bRIGHTS\b|(?<=\w )(RIGHT|RTS)( EXP\b.*)?$"),
)
_NAMES = (
    ("collateral", r"\bCOLLATERAL\b|\bVARIATION MARGIN\b"),
    ("futures", r"\bFUT(URES?)?\b|\bE[ -]?MINI\b"),
    ("swap", r"\bSWAPS?\b"),
    ("money market", r"\bMONEY (MARKET|MKT)\b|\b(MARKET|SECURITIES) LIQUIDITY\b|\bLIQUIDITY (FUND|FD)\b"),
    (
        "money market",
        r"\b(GOVT?|GOVERNMENT|TREAS(URY)?|TRSY|CASH|CSH)\b.*\b(OBLIG(ATIONS?)?|FUND|FD|FND|INST|RESERVES?)\b",
    ),
    ("bond", r"\bTREASURY (BILL|NOTE|BOND)S?\b|\bT-?BILLS?\b|\bCASH MANAGEMENT BILL\b"),
    (
        "cash",
        r"^(NET )?CASH($|[^\w ]| (AND|&|COMPONENT|OFFSET|EQUIVALENTS?|BALANCE)(?!\w))|^[A-Z]{3} CASH\b|OTHER ASSETS\b",
    ),
    ("cash", r"^(U\.?S\.?|UNITED STATES|CANADIAN|AUSTRALIAN|HONG KONG|SINGAPORE|NEW ZEALAND|(NEW )?TAIWAN) DOLLARS?\b"),
    ("cash", r"^(JAPANESE YEN|EURO( CURRENCY)?|(BRITISH )?POUND STERLING|BRITISH POUND|SWISS FRANC)$|\bCURRENCY$"),
)
_NO_TICKER = re.compile(r"|-+|NAN|#?N/A|NONE")
_FUTURES = re.compile(r"[A-Z]{2,4}[FGHJKMNQUVXZ]\d{1,2}")
_EXPIRY = re.compile(r"\b(JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC) ?'?\d{2}\b")
_CLASS = re.compile("[A-Z]{1,5}-[A-Z]")
_OPTION = re.compile(r"\w+ *\d{6}[CP]\d+")

# Share classes on American exchanges that some vendors write without a separator. Other symbols with such endings, as
# GOOGL, FOXA, CMCSA or HUBB, have none.
_CLASSES = {
    **dict.fromkeys(["AGM", "BH", "CBS", "CWEN", "GTN", "HEI", "HVT", "NYLD", "PBR", "TAP"], "A"),
    **dict.fromkeys(["AKO", "BF", "BRK", "CRD", "FCE", "JW", "LGF", "MOG", "RDS"], "AB"),
    **dict.fromkeys(["BIO", "EBR", "GEF", "LEN", "STZ", "UHAL", "WSO"], "B"),
    "CIG": "C",
    "MKC": "V",
}

# Markets: the suffix of their symbols, words in vendors' names of the exchange, and the codes that Bloomberg appends to
# a ticker. The first match counts.
_MARKETS = (
    ("T", "tokyo", "JP JT"),
    ("L", "london", "LN"),
    ("PA", "paris", "FP"),
    ("AS", "amsterdam", "NA"),
    ("BR", "brussels", "BB"),
    ("LS", "lisbon", "PL"),
    ("IR", "irish|dublin", "ID"),
    ("DE", "xetra|deutsche|frankfurt", "GR GY"),
    ("SW", "swiss", "SW SE VX"),
    ("MI", "italiana|milan", "IM"),
    ("MC", "madrid|spanish", "SM SQ"),
    ("CO", "copenhagen", "DC"),
    ("HE", "helsinki", "FH"),
    ("OL", "oslo", "NO"),
    ("ST", "stockholm|omx nordic", "SS"),
    ("VI", "wiener|vienna", "AV"),
    ("WA", "warsaw", "PW"),
    ("AT", "athens", "GA"),
    ("PR", "prague", "CP"),
    ("BD", "budapest", "HB"),
    ("IS", "istanbul", "TI"),
    ("TA", "tel aviv", "IT"),
    ("V", "venture", "CV"),
    ("TO", "toronto", "CN CT"),
    ("AX", "asx|australian", "AU AT"),
    ("NZ", "new zealand", "NZ"),
    ("SI", "singapore", "SP"),
    ("SS", "shanghai", "CG"),
    ("SZ", "shenzhen", "CS"),
    ("HK", "hong kong", "HK"),
    ("TWO", "gretai|taipei", ""),
    ("TW", "taiwan", "TT"),
    ("KQ", "kosdaq", "KQ"),
    ("KS", "korea", "KS KP"),
    ("NS", "national stock exchange of india", "IN IS"),
    ("BO", "bse|bombay", "IB"),
    ("BK", "thailand", "TB"),
    ("JK", "indonesia", "IJ"),
    ("KL", "malaysia", "MK"),
    ("PS", "philippine", "PM"),
    ("SA", "xbsp|sao paulo|b3|bovespa", "BZ BS"),
    ("MX", "mexicana|mexico", "MM MF"),
    ("SN", "santiago", "CI"),
    ("JO", "johannesburg", "SJ"),
    ("SR", "saudi", "AB"),
    ("QA", "qatar", "QD"),
    ("KW", "kuwait", "KK"),
    ("AE", "dubai|abu dhabi", "UH DH"),
    ("", "nasdaq|new york|nyse|cboe|bats|nnqs|no market|otc|iex", "US UN UW UQ UR UA UP UF UV"),
)
_CODES = {code: suffix for suffix, _, codes in _MARKETS for code in codes.split()}

_AS_OF = re.compile(r"\bas of(?: date)?\W*(.*)", re.IGNORECASE | re.DOTALL)
_FUND_LABELS = ("ticker symbol", "fund ticker", "ticker")
_DAYS = ("%b %d %Y", "%B %d %Y", "%d %b %Y", "%d %B %Y", "%m %d %Y", "%Y %m %d", "%Y%m%d")


class VendorRow(NamedTuple):
    """A row of a vendor's table of holdings."""

    line: int
    ticker: str
    """Ticker as the vendor writes it."""
    symbol: str
    name: str | None
    weight: str
    """Weight as the vendor writes it; empty if there is none."""
    industry: str | None
    reason: str
    """Reason why this is no stock; empty if it is one."""


class VendorTable:
    """A vendor's table of holdings, and the fund and day that it states."""

    def __init__(
        self, errors: FileErrors, vendor_format: VendorFormat, columns: dict[str, int], head: Sequence[TextRow]
    ) -> None:
        self.errors = errors
        self.format = vendor_format
        self.columns = columns
        *preamble, (_, self.header) = head
        self.fund: str | None = None
        """The fund's ticker, as read so far."""
        self.as_of: date | None = None
        """The day of the holdings, as read so far."""
        self.notes: list[str] = []
        self.percent = "%" in self.header[columns["weight"]] if "weight" in columns else False
        """True if the header says that the weights are percent."""
        self._abroad: list[str] = []
        for _, cells in preamble:
            self._read_preamble(cells)

    def _read_preamble(self, cells: Sequence[str]) -> None:
        filled = [cell for cell in cells if cell]
        text = ", ".join(filled)
        if len(filled) == 2 and filled[0].lower().rstrip(": ") in _FUND_LABELS:  # noqa: PLR2004 - a label and a value
            self.fund = filled[1].upper()
        elif self.format.title and (found := re.search(self.format.title, text)):
            self.fund = found[1]
        if self.as_of is None and (found := _AS_OF.search(text)):
            self.as_of = read_day(found[1])
            if self.as_of is None and not _NO_TICKER.fullmatch(found[1]):
                self.notes.append(f"'as of {found[1]}' is not a date that is known here")

    def vendor_rows(self, rows: Iterable[TextRow]) -> Iterator[VendorRow]:
        """Yield the holdings in the rows after the header; errors in them are added to `errors`."""
        section, width = "", _width(self.header)
        for line, cells in rows:
            if self.header[self.columns["symbol"]] in cells and (again := self.format.columns(cells)):
                self.columns, self.header, width = again, cells, _width(cells)
            elif _is_text(cells, width):
                # a table of bonds or reserves may follow the one of stocks
                if _AS_OF.search(" ".join(cells)):
                    section = _kind(next(filter(None, cells)))
            elif reason := shape_error(cells, width):
                self.errors.add(line, reason)
            else:
                yield self._vendor_row(line, cells, section)
        if self._abroad:
            some = ", ".join(self._abroad[:3]) + (f" and {len(self._abroad) - 3:,} more" if self._abroad[3:] else "")
            self.notes.append(f"listed abroad, where no suffix is known, and kept as the vendor writes them: {some}")

    def _vendor_row(self, line: int, cells: Sequence[str], section: str) -> VendorRow:
        cell = {role: cells[index] for role, index in self.columns.items()}
        self._check_consistency(line, cell)
        ticker, name = cell["symbol"].upper(), " ".join(cell["name"].split())
        weight = cell.get("weight", "")
        if re.fullmatch(r"-*|n/a|<\s*0?\.0*1\s*%?", weight, re.IGNORECASE):
            weight = "0%" if "%" in weight else "0" if "<" in weight else ""
        reason = section or _reason(ticker, name.upper(), cell.get("kind", "").strip("-"))
        if not reason and weight.startswith("-") and weight.strip("-0.%"):
            reason = "short position"
        symbol, known = normalize_ticker(ticker, cell.get("exchange", ""), cell.get("currency", ""))
        if not reason and not known:
            self._abroad.append(ticker)
        return VendorRow(line, ticker, symbol, name or None, weight, cell.get("industry") or None, reason)

    def _check_consistency(self, line: int, cell: dict[str, str]) -> None:
        """Add an error if a row has another fund or day than the rows before it."""
        if fund := cell.get("fund", "").upper():
            if self.fund not in (None, fund):
                self.errors.add(line, f"is of fund {quoted(fund)}, other rows of {self.fund}; split the file")
            self.fund = self.fund or fund
        if written := cell.get("day"):
            day = read_day(written)
            if day is None:
                self.errors.add(line, f"date {quoted(written)} is not a date such as 2025-11-18 or 11/18/2025")
            elif self.as_of not in (None, day):
                self.errors.add(line, f"is of {day}, other rows of {self.as_of}; split the file")
            self.as_of = self.as_of or day


def find_table(errors: FileErrors, head: Sequence[TextRow]) -> tuple[VendorTable, Sequence[TextRow]] | None:
    """Find the header among the first rows of a file; return the table and the rows after the header."""
    for number, (_, cells) in enumerate(head, 1):
        for vendor_format in VENDOR_FORMATS:
            if columns := vendor_format.columns(cells):
                return VendorTable(errors, vendor_format, columns, head[:number]), head[number:]
    return None


@lru_cache(maxsize=256)
def read_day(written: str) -> date | None:
    """Read a date as vendors write it: Nov 18, 2025; 18-Nov-2025; 11/18/2025 (the month first); 2025-11-18."""
    text = re.sub(r"[\s,./-]+", " ", written).strip()
    for pattern in _DAYS:
        try:
            return datetime.strptime(text, pattern).replace(tzinfo=UTC).date()
        except ValueError:
            pass
    return None


def normalize_ticker(ticker: str, exchange: str = "", currency: str = "") -> tuple[str, bool]:
    """Return the symbol for a vendor's ticker (BRKB -> BRK.B), and true if its market is known.

    A stock listed abroad gets its market's suffix, as in 7203.T, so that it is not taken for an American one of the
    same letters; if the market is not known, the ticker stays as it is.
    """
    suffix: str | None
    code = re.fullmatch(r"(\S+) ([A-Z]{2})", ticker)
    if code and code[2] in _CODES:
        ticker, suffix = code[1], _CODES[code[2]]
    elif exchange.strip("-"):
        suffix = _suffix(exchange)
    else:
        suffix = "" if currency.strip("-").upper() in ("", "USD") else None
    if suffix is None:
        return re.sub(r"\s+", ".", ticker), False
    if suffix:
        local = re.sub(r"[\s./]+", "-", ticker.rstrip(".*"))
        return f"{local.zfill(4) if suffix == 'HK' else local}.{suffix}", True
    if ticker[-1:] in _CLASSES.get(ticker[:-1], ()):
        return f"{ticker[:-1]}.{ticker[-1]}", True
    return re.sub(r"[\s/]+", ".", with_dotted_class(ticker)), True


def with_dotted_class(symbol: str) -> str:
    """Return a symbol with its share class after a dot, as in BRK.B for BRK-B."""
    return f"{symbol[:-2]}.{symbol[-1]}" if symbol[-2:-1] == "-" and _CLASS.fullmatch(symbol) else symbol


@lru_cache(maxsize=256)
def _suffix(exchange: str) -> str | None:
    return next((suffix for suffix, words, _ in _MARKETS if re.search(rf"\b({words})\b", exchange.lower())), None)


def shape_error(fields: Sequence[str], width: int) -> str:
    """Say what is wrong with the number of fields of a row; empty if nothing is."""
    if len(fields) == width or (len(fields) > width and not any(fields[width:])):
        return ""
    return f"has {len(fields)} fields where the header has {width}; a field with a comma needs quotes"


def _width(header: Sequence[str]) -> int:
    return max(number for number, name in enumerate(header, 1) if name)


def _is_text(cells: Sequence[str], width: int) -> bool:
    """Return true for a line of a preamble or footer, false for a row, even a truncated one."""
    first, *others = [cell for cell in cells if cell]
    if not others:
        return not re.fullmatch(r"[A-Z0-9./-]+", first)
    return len(cells) < width and (len(first) > MAX_LABEL or bool(_AS_OF.search(", ".join(others))))


def _reason(ticker: str, name: str, kind: str) -> str:
    """Say why a row is no stock; empty if it is one."""
    if found := _kind(kind) or _search(_REMNANTS, name) or ("" if kind else _search(_NAMES, name)):
        return found
    if ticker.startswith("CASH_"):
        return "cash"
    if _OPTION.fullmatch(ticker):
        return "option"
    if _FUTURES.fullmatch(ticker) and _EXPIRY.search(name):
        return "futures"
    return "no ticker" if _NO_TICKER.fullmatch(ticker) else ""


@lru_cache(maxsize=256)
def _kind(kind: str) -> str:
    return next((reason for reason, words in _KINDS if re.search(rf"\b({words})\b", kind.lower())), "")


def _search(reasons: Iterable[tuple[str, str]], name: str) -> str:
    return next((reason for reason, pattern in reasons if re.search(pattern, name)), "")
