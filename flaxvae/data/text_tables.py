"""Tables in text files: encoding, separator, header and decimals, stated or found."""

import contextlib
import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from flaxvae.checks import InputError
from flaxvae.data.arrow import ArrowColumn, ArrowTable
from flaxvae.data.cells import parse_text, reading

Decimal = Literal[".", ","]
Header = Literal["yes", "no"]
MISSING_TEXTS = (  # those of pandas
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND",
    "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
MARKS = ("?", "-", "--", ".", "*")  # for missing numbers, in some files
SEPARATORS = ("\t", ";", "|", ",")  # in the order of preference where several fit
NAMES = {"\t": "tabs", ";": "semicolons", "|": "|", ",": "commas", " ": "spaces"}
SPELLED = {"\\t": "\t", "tab": "\t", "space": " ", "comma": ",", "semicolon": ";"}
HEAD_BYTES = 2**18  # that are looked at
HEAD_ROWS = 200
BLOCK_BYTES = 2**26  # of a file that are parsed at once
NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
COMMA_NOTE = "a comma stands before decimals (found: see decimal)"
DOTTED_THREE = r"^[-+]?[1-9]\d{0,2}(\.\d{3})+$"  # a dot of thousands, or of decimals
LEADING_ZERO = r"^0\d"
DECIMAL_COMMA = r"^[-+]?\d*,\d+([eE][-+]?\d+)?$"
WHOLE = r"^[-+]?\d+$"
THREE_DIGITS = r"^[-+]?[1-9]\d{0,2},\d{3}$"  # a comma of thousands, or of decimals


class TextTable(NamedTuple):
    """A table of text.

    Attributes:
      table: an Arrow table of strings, null where a value is missing; a column without
        a name in the file has the name ``""``.
      notes: a line for each thing that was guessed.
    """

    table: ArrowTable
    notes: list[str]


def read_text_table(
    path: Path,
    *,
    separator: str | None = None,
    header: Header | None = None,
    decimal: Decimal | None = None,
    encoding: str | None = None,
    missing_values: Sequence[str] = (),
    is_number: Callable[[str], bool] = lambda name: True,
) -> TextTable:
    """Reads a text file, gzipped or not, without deciding what its columns are.

    Args:
      path: of the file.
      separator: the character between columns; None: found among `SEPARATORS` and
        spaces.
      header: whether the first line names the columns; None: yes, unless it holds
        numbers above numbers.
      decimal: the character before decimals; None: a dot, or a comma in columns that
        are numbers only that way.
      encoding: of the text; None: that of a byte-order mark, UTF-8, or Windows-1252.
      missing_values: texts that mean a missing value, besides `MISSING_TEXTS`.
      is_number: whether the column of a name will be one of numbers.

    Raises:
      InputError: the file cannot be read or has no rows, or numbers with marks of
        thousands.
    """
    notes: list[str] = []
    text = _decode(_read_bytes(path), path, encoding, notes)
    text, stated = _skip_preface(text)
    separator = SPELLED.get(separator or "", separator) or stated
    if separator is not None and len(separator) != 1:
        raise InputError(f"separator must be one character, got {separator!r}")
    head = _head(text)
    if separator is None:
        separator = _find_separator(head)
        if separator != ",":
            notes.append(
                f"columns are separated by {NAMES[separator]} (found: see separator)"
            )
    if separator == " ":
        text = _single_spaces(text)
        head = _head(text)
    rows = _parse_head(head, separator)
    if not rows:
        raise InputError(f"{path} cannot be read: it is empty")
    names, body = _split_header(text, rows, separator, header, missing_values, notes)
    table = _parse_body(body, names, separator, path)
    columns = [
        _clean(column, name, separator, decimal, missing_values, notes)
        for name, column in zip(names, table.columns, strict=True)
    ]
    if decimal is None and COMMA_NOTE in notes:
        for name, column in zip(names, table.columns, strict=True):
            if is_number(name) and (marked := _find_thousands(column)):
                raise InputError(
                    f"column {name!r} of {path} must hold numbers without a mark of "
                    f"thousands, got {marked!r} beside commas before decimals: list it "
                    "in drop_columns or categorical, or remove the marks"
                )
    import pyarrow

    return TextTable(pyarrow.Table.from_arrays(columns, names=names), notes)


def _find_thousands(column: ArrowColumn) -> str | None:
    """The first of a column's numbers where all with a dot are like 1.000."""
    import pyarrow.compute as pc

    column = pc.utf8_trim_whitespace(column)
    dotted = column.filter(pc.match_substring(column, "."))
    if len(dotted) and pc.all(pc.match_substring_regex(dotted, DOTTED_THREE)).as_py():
        return str(dotted[0].as_py())
    return None


def infer_types(table: ArrowTable, categories: Sequence[str | None] = ()) -> ArrowTable:
    """A table of text with columns as integers, floats, booleans, times, or text.

    Columns of ``categories`` stay text where one begins with a zero, as 01234 does.
    """
    import pyarrow
    import pyarrow.compute as pc

    def has_codes(column: ArrowColumn) -> bool:
        return bool(pc.any(pc.match_substring_regex(column, LEADING_ZERO)).as_py())

    columns = [
        column if name in categories and has_codes(column) else _infer_type(column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pyarrow.Table.from_arrays(columns, names=table.column_names)


def _infer_type(column: ArrowColumn) -> ArrowColumn:
    import pyarrow
    import pyarrow.compute as pc

    if column.null_count == len(column):
        return pyarrow.nulls(len(column))
    found = parse_text(column)
    if found is not None:
        return found
    if set(pc.unique(pc.utf8_lower(column)).to_pylist()) <= {"true", "false", None}:
        return pc.equal(pc.utf8_lower(column), "true")
    for kind in (
        pyarrow.date32(),
        pyarrow.timestamp("us"),
        pyarrow.timestamp("us", "UTC"),
    ):
        try:
            return column.cast(kind)
        except pyarrow.ArrowException:
            continue
    return column


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read: {reason}") from error


def _decode(content: bytes, path: Path, encoding: str | None, notes: list[str]) -> str:
    """The text, with newlines as one character."""
    if encoding is None:
        encoding = _find_encoding(content, notes)
    try:
        text = content.decode(encoding)
    except (LookupError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read as {encoding!r}: {error}") from error
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        raise InputError(f"{path} cannot be read: it holds bytes that are not text")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _find_encoding(content: bytes, notes: list[str]) -> str:
    for mark, name in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if content.startswith(mark):
            return name
    for name in ("utf-8", "cp1252", "latin-1"):
        try:
            content.decode(name)
        except UnicodeDecodeError:
            continue
        if name != "utf-8":
            notes.append(f"the text is not UTF-8 and is read as {name} (see encoding)")
        return name
    raise AssertionError  # latin-1 reads everything


def _skip_preface(text: str) -> tuple[str, str | None]:
    """The text without Excel's line ``sep=;`` and without comments, and the former."""
    text = text.lstrip("\n")
    separator = None
    if found := re.match(r'"?sep=(.)"?[ ]*\n', text, re.IGNORECASE):
        text, separator = text[found.end() :], found[1]
    comments = re.match(r"(#[^\n]*\n)+", text)
    if comments:
        lines = comments[0].splitlines()
        rest = text[comments.end() :]
        # NumPy's savetxt writes the header as the last comment.
        last = lines[-1].lstrip("# ")
        first = rest.partition("\n")[0]
        fits = any(
            last.count(mark) == first.count(mark) > 0 for mark in (*SEPARATORS, " ")
        )
        text = f"{last}\n{rest}" if fits else rest
    return text, separator


def _head(text: str) -> str:
    head = text[:HEAD_BYTES]
    if len(text) > HEAD_BYTES:
        head = head.rpartition("\n")[0]
    return head


def _parse_head(head: str, separator: str) -> list[list[str]]:
    """The first rows that are not empty, as lists of texts without spaces around."""
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # a field that is too long ends the rows
        for row in csv.reader(io.StringIO(head, newline=""), delimiter=separator):
            if any(row) or len(row) > 1:
                rows.append([cell.strip() for cell in row])
            if len(rows) >= HEAD_ROWS:
                break
    return rows


def _find_separator(head: str) -> str:
    shares = {}
    for separator in SEPARATORS:
        counts = [len(row) for row in _parse_head(head, separator)]
        usual = max(set(counts), key=counts.count, default=1)
        if usual > 1:
            shares[separator] = counts.count(usual) / len(counts)
    if shares and max(shares.values()) > 0.5:
        return max(shares, key=lambda separator: shares[separator])
    rows = [line.split() for line in head.splitlines()[:HEAD_ROWS] if line.strip()]
    widths = {len(row) for row in rows}
    if len(widths) == 1 and widths != {1} and '"' not in head:
        count = sum(bool(NUMBER.fullmatch(cell)) for cell in rows[-1])
        if count > len(rows[-1]) / 2:
            return " "
    return ","


def _single_spaces(text: str) -> str:
    """One space between columns, and none before them."""
    return re.sub(r"(?m)^ +| +$", "", re.sub(r"[ \t]+", " ", text))


def _split_header(
    text: str,
    rows: list[list[str]],
    separator: str,
    header: Header | None,
    missing_values: Sequence[str],
    notes: list[str],
) -> tuple[list[str], str]:
    """The names of the columns, ``""`` for none, and the text below them."""
    widths = [len(row) for row in rows[1:]] or [len(rows[0])]
    width = max(set(widths), key=widths.count)
    first = rows[0]
    if header is None:
        header = "yes" if _is_header(rows, missing_values) else "no"
        if header == "no":
            notes.append(
                "the first line holds numbers and is read as a row; columns are named "
                "column 1, column 2, ... (found: see header)"
            )
        elif any(NUMBER.fullmatch(cell) for cell in first):
            notes.append(
                "the first line names the columns, though it holds numbers (found: see "
                "header)"
            )
    if header == "no":
        return [f"column {i + 1}" for i in range(len(first))], text
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    for row in reader:
        if any(row) or len(row) > 1:
            break
    lines = text.split("\n", reader.line_num)
    body = lines[reader.line_num] if len(lines) > reader.line_num else ""
    if len(first) == width - 1:
        if all(len(row) == width and not row[-1] for row in rows[1:]):
            first = [*first, ""]  # a separator at the end of each row
        else:
            first = ["", *first]  # names of rows, as R writes them
    return first, body


def _is_header(rows: list[list[str]], missing_values: Sequence[str]) -> bool:
    """Whether the first row names the columns.

    No number stands above numbers; or a text does, beside consecutive integers such as
    years, or 0, 1, 2 as pandas writes them.
    """
    first, rest = rows[0], rows[1:]
    if not rest:
        return True
    named = [cell for cell in first if cell]
    counted = [str(i) for i in range(len(named) + 1)]
    if named in (counted[:-1], counted[1:]):
        return True  # pandas numbers the columns of an array
    above = []  # cells above numbers
    for i, cell in enumerate(first):
        below = [row[i] for row in rest if i < len(row) and row[i]]
        is_number = [bool(NUMBER.fullmatch(value)) for value in below]
        if sum(is_number) > len(is_number) / 2:
            above.append(cell)
    numbers = [cell for cell in above if NUMBER.fullmatch(cell)]
    texts = set(above).difference(numbers, MISSING_TEXTS, MARKS, missing_values)
    if not (numbers and texts and all(map(str.isdecimal, numbers))):
        return not numbers
    start = int(numbers[0])
    counted = [str(start + i) for i in range(len(numbers))]
    return numbers == counted and (len(numbers) > 1 or start == 0)


def _parse_body(
    body: str, names: Sequence[str], separator: str, path: Path
) -> ArrowTable:
    """The cells as an Arrow table of text, its columns named by their numbers."""
    import pyarrow
    from pyarrow import csv as arrow_csv

    numbered = [str(i) for i in range(len(names))]
    if not body.strip("\n"):
        raise InputError(f"{path} must hold rows of numbers, got none")
    is_one = len(names) == 1  # whose missing values are empty lines
    if is_one:
        lines = body.strip("\n").split("\n")
        is_spaced = len(lines) > 2 and not any(lines[1::2])  # an empty line after each
        body = "\n".join(lines[::2] if is_spaced else lines)
    with reading(str(path)):
        return arrow_csv.read_csv(
            io.BytesIO(body.encode("utf-8", "replace")),
            read_options=arrow_csv.ReadOptions(
                column_names=numbered, block_size=BLOCK_BYTES
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=separator,
                newlines_in_values=True,
                ignore_empty_lines=not is_one,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(numbered, pyarrow.string()),
                strings_can_be_null=False,
            ),
        )


def _clean(
    column: ArrowColumn,
    name: str,
    separator: str,
    decimal: Decimal | None,
    missing_values: Sequence[str],
    notes: list[str],
) -> ArrowColumn:
    """A column with null for what is missing, and a dot before decimals."""
    import pyarrow
    import pyarrow.compute as pc

    column = pc.utf8_trim_whitespace(column)
    column = without(column, [*MISSING_TEXTS, *missing_values])
    if parse_text(column) is not None and decimal != ",":
        return _without_numbers(column, missing_values)
    if decimal == "," and parse_text(column) is not None:
        dotted = column.filter(pc.match_substring(column, "."))
        if len(dotted.drop_null()):
            raise InputError(
                f"column {name!r} must have a comma before decimals, as decimal says, "
                f"got {dotted.drop_null()[0].as_py()!r}"
            )
    kinds = pc.unique(column.slice(0, 10 * HEAD_ROWS)).to_pylist()
    for mark in MARKS:
        if mark in kinds:
            blank = without(column, [mark])
            if blank.null_count < len(blank) and parse_text(blank) is not None:
                notes.append(f"{mark!r} in column {name!r} is a missing value")
                return _without_numbers(blank, missing_values)
    has_commas = pc.match_substring_regex(column, DECIMAL_COMMA)
    is_number = pc.or_(has_commas, pc.match_substring_regex(column, WHOLE))
    if decimal == "." or not (pc.all(is_number).as_py() and pc.any(has_commas).as_py()):
        return column
    if decimal is None:
        only_three = pc.match_substring_regex(column, THREE_DIGITS)
        others = pc.and_(has_commas, pc.invert(only_three))
        if separator == "," and not pc.any(others).as_py():
            return column  # thousands, perhaps
        if COMMA_NOTE not in notes:
            notes.append(COMMA_NOTE)
    column = pc.replace_substring(column, ",", ".").cast(pyarrow.string())
    return _without_numbers(column, missing_values)


def without(column: ArrowColumn, values: Sequence[str]) -> ArrowColumn:
    """A column of text with null in place of these values."""
    import pyarrow
    import pyarrow.compute as pc

    is_missing = pc.is_in(column, value_set=pyarrow.array(values, pyarrow.string()))
    return pc.if_else(is_missing, pyarrow.scalar(None, pyarrow.string()), column)


def _without_numbers(column: ArrowColumn, values: Sequence[str]) -> ArrowColumn:
    """A column of numbers as text with null for these, as -999.0 for -999."""
    import pyarrow
    import pyarrow.compute as pc

    x = parse_text(column)
    if x is None or not values:
        return column
    nothing = pyarrow.scalar(None, pyarrow.string())
    return pc.if_else(are_among(x, values), nothing, column)


def are_among(column: ArrowColumn, values: Sequence[str]) -> ArrowColumn:
    """Which numbers of a column are one of these values, as Arrow booleans."""
    import pyarrow
    import pyarrow.compute as pc

    found = []
    for value in values:
        with contextlib.suppress(ValueError):
            found.append(float(value))
    wide = column.cast(pyarrow.float64(), safe=False)
    return pc.is_in(wide, value_set=pyarrow.array(found, pyarrow.float64()))
