"""Convert text files of any encoding and separator to what the readers need: UTF-8, with a separator of one byte.

Detects an encoding if the bytes leave no doubt, and else says which option to give. Knows nothing of columns.
"""

import codecs
import io
from collections.abc import Callable
from typing import IO

from trsr.errors import DataError, UsageError

SAMPLE_BYTES = 1 << 22  # first bytes of a file, from which its encoding is detected
SEPARATOR = b"\x1f"  # replaces a separator of several bytes: ASCII's unit separator, which texts do not hold
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "Zstandard", b"PK\x03\x04": "zip"}  # first bytes -> format
_MIN_LINES = 2  # lines that are evidence of another encoding: a single one may be damaged, but a header is needed


def check_uncompressed(name: str, start: bytes) -> None:
    """Raise DataError if a file of text, of which `start` are the first bytes as its name says to read it, is compressed."""
    for first, form in _COMPRESSED.items():
        if start.startswith(first):
            rename = ", or give its name the ending .gz" if form == "gzip" and not name.lower().endswith(".gz") else ""
            raise DataError(f"{name} is compressed with {form}; expected text. Decompress it{rename}.")


def has_cr_alone(start: bytes) -> bool:
    """Whether the lines of a file in UTF-8, of which `start` are the first bytes, end in CR alone, as on old Macs."""
    return b"\r" in start and b"\n" not in start


def encoding_of(name: str, start: bytes, given: str | None = None) -> str:
    """The encoding of a file, by Python's name: the detected one if its bytes leave no doubt, else `given`, else UTF-8.

    Args:
        name: Of the file, for messages.
        start: Its first SAMPLE_BYTES bytes, or all.
        given: The encoding that the user gave. One of several files may be in another, see `differs`.

    Raises:
        UsageError: If there is no such encoding.
        DataError: If the bytes are not in it.
    """
    encoding = _codec_name(given) if given else "utf-8"
    for mark, marked in _MARKS.items():
        if start.startswith(mark):
            return marked
    if wide := _unmarked_utf16(start):
        return wide
    if encoding.startswith(("utf-16", "utf-32")):
        raise DataError(f"{name} is not {given}: it has neither a byte order mark nor zero bytes. {_AGAIN}")
    broken, non_ascii = _beyond_ascii(start)
    if encoding == "utf-8":
        enough = len(broken) >= _MIN_LINES or (broken and broken[0][0] == 1)
        if not given and enough and not non_ascii:
            raise DataError(_not_utf8(name, broken))
    elif encoding == "iso8859-1" and _has_c1_bytes(broken):
        raise DataError(f"{name} has letters or quotes that latin-1 does not have. Give --encoding cp1252.")
    elif len(non_ascii) >= _MIN_LINES and not broken:
        return "utf-8"
    return encoding


def differs(encoding: str, given: str | None) -> bool:
    """Whether `encoding_of` returned another encoding than was given; UTF-8 counts as given by default."""
    expected = _codec_name(given or "utf-8").removesuffix("-le").removesuffix("-be")  # the byte order mark says which
    return not encoding.startswith(expected)


_AGAIN = "Give the --encoding that it was written in, or leave it out."


def _codec_name(name: str) -> str:
    try:
        b"ab".decode(name, "ignore")
    except LookupError:  # also for codecs of bytes, such as hex
        raise UsageError(
            f"Unknown encoding {name!r}; --encoding takes utf-8, utf-16, latin-1, cp1252, shift_jis, gb18030 or any "
            "other that Python knows."
        ) from None
    return codecs.lookup(name).name.replace("utf-8-sig", "utf-8")


def _unmarked_utf16(start: bytes) -> str | None:
    """UTF-16 without a byte order mark, if every second byte is zero for most characters; None otherwise."""
    even, odd = start[0::2].count(0), start[1::2].count(0)
    half = len(start) // 2
    if max(even, odd) * 4 > half and min(even, odd) * 100 <= half:
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


def _beyond_ascii(start: bytes) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Numbered lines that are not UTF-8, and numbered lines that are UTF-8 but not ASCII."""
    broken: list[tuple[int, bytes]] = []
    non_ascii: list[tuple[int, bytes]] = []
    if not start.isascii():
        lines = start.split(b"\r" if has_cr_alone(start) else b"\n")
        for number, line in enumerate(lines[:-1] if len(start) >= SAMPLE_BYTES else lines, 1):
            if not line.isascii():
                try:
                    line.decode()
                    non_ascii.append((number, line))
                except UnicodeDecodeError:
                    broken.append((number, line))
    return broken, non_ascii


def is_utf8(start: bytes) -> bool:
    """Whether all lines in the first SAMPLE_BYTES bytes of a file are UTF-8."""
    return not _beyond_ascii(start)[0]


def _not_utf8(name: str, broken: list[tuple[int, bytes]]) -> str:
    number, line = broken[0]
    message = (
        f"{name} is not UTF-8: {len(broken)} of its first lines {'are' if broken[1:] else 'is'} not, and none beyond ASCII is; the "
        "first is line"
    )
    try:
        guess = "cp1252" if _has_c1_bytes(broken) else "latin-1"
        excerpt = _around(line.decode(guess))
    except UnicodeDecodeError:
        return f"{message} {number}. Name its encoding: --encoding shift_jis, gb18030, cp1251, ..."
    return (
        f"{message} {number}, which reads {excerpt!r} in {guess}. If that is right, give --encoding {guess}, else the encoding "
        "that it was written in. (--encoding utf-8 leaves such rows out.)"
    )


def _has_c1_bytes(lines: list[tuple[int, bytes]]) -> bool:
    """Whether there are bytes 0x80 to 0x9F: control characters in Latin-1, letters and quotes in Windows-1252."""
    return any(0x80 <= byte < 0xA0 for _, line in lines for byte in line)


def _around(text: str) -> str:
    """The text around the first character that is not ASCII."""
    index = next(index for index, char in enumerate(text) if not char.isascii())
    return text[max(index - 20, 0) : index + 20].strip()


def separator_bytes(given: str) -> bytes:
    r"""The separator that the user gave, in UTF-8; `\t` and `tab` mean a tab. Raises UsageError if it is not valid."""
    separator = {"\\t": "\t", "tab": "\t"}.get(given, given)
    if not separator or any(char in '"\r\n' for char in separator):
        raise UsageError(f"--sep takes what stands between two cells, such as ';', '::' or tab; got {given!r}.")
    return separator.encode()


class _Recoder(io.RawIOBase):
    def __init__(
        self,
        raw: IO[bytes],
        encoding: str,
        separator: bytes | None,
        name: str,
        on_read: Callable[[bytes], object] | None,
        cr_ends_lines: bool,
    ) -> None:
        self._raw, self._encoding, self._separator, self._name, self._on_read = raw, encoding, separator, name, on_read
        # UTF-8 is not decoded here: readers report the rows that are not valid.
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        self._cr_ends_lines = cr_ends_lines
        self._line, self._rest, self._ready = 1, b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target) -> int:
        while not self._ready:
            piece = self._raw.read(1 << 20)
            if piece and self._on_read:
                self._on_read(piece)
            converted = self._utf8(piece)
            if self._cr_ends_lines:
                converted = converted.replace(b"\r", b"\n")
            self._line += converted.count(b"\n")
            self._ready = memoryview(self._split(converted, last=not piece))
            if not piece:
                break
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _utf8(self, piece: bytes) -> bytes:
        if self._decoder is None:
            return piece
        try:
            return self._decoder.decode(piece, not piece).encode()
        except UnicodeError as error:
            raise DataError(
                f"{self._name} cannot be read as {self._encoding}: {error} (after line {self._line}). {_AGAIN}"
            ) from None

    def _split(self, content: bytes, last: bool) -> bytes:
        if self._separator is None:
            return content
        content = self._rest + content
        end = len(content) if last else content.rfind(b"\n") + 1  # a separator never spans the end of a line
        self._rest = content[end:]
        return content[:end].replace(SEPARATOR, b" ").replace(self._separator, SEPARATOR)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def recoded(
    raw: IO[bytes],
    encoding: str,
    separator: bytes | None,
    name: str,
    on_read: Callable[[bytes], object] | None,
    *,
    cr_ends_lines: bool = False,
) -> IO[bytes]:
    """A file converted to UTF-8, with SEPARATOR in place of a separator of several bytes.

    Args:
        separator: In UTF-8; None if it is kept.
        on_read: Called with the original bytes as they are read.
        cr_ends_lines: Whether lines end in CR alone; they then end in LF.

    Raises:
        DataError: During reading, if the file is not in that encoding.
    """
    return io.BufferedReader(_Recoder(raw, encoding, separator, name, on_read, cr_ends_lines), 1 << 20)
