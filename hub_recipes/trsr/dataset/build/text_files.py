"""Text files in any encoding, and with separators of several characters, as what the readers take: UTF-8, one byte a separator.

Tells an encoding where the bytes do, and says which option to give where they leave a doubt. Knows nothing of columns.
"""

import codecs
import io
from collections.abc import Callable
from typing import IO

from trsr.errors import DataError, UsageError

LOOK = 1 << 22  # bytes of a file that tell its encoding
SEPARATOR = b"\x1f"  # what stands for a separator of several bytes: the character that is made for it, and no text
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # begins with the mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LEAST = 2  # lines that show another encoding: a single one may be damaged


def encoding_of(name: str, start: bytes, given: str | None = None) -> str:
    """The encoding of a file, as Python calls it: as its bytes say, where they leave no doubt, else as given, else UTF-8.

    Of files that are given one encoding, one may be in another; `differs` tells.

    Args:
        name: What messages call the file.
        start: Its first LOOK bytes, or all.
        given: What the user says.

    Raises:
        UsageError: If there is no such encoding.
        DataError: If the bytes cannot be in it.
    """
    encoding = _known(given) if given else "utf-8"
    for mark, marked in _MARKS.items():
        if start.startswith(mark):
            return marked
    if wide := _unmarked_utf16(start):
        return wide
    if encoding.startswith(("utf-16", "utf-32")):
        raise DataError(f"{name} is not {given}: it has neither a byte order mark nor zero bytes. {_AGAIN}")
    broken, whole = _beyond_ascii(start)
    if encoding == "utf-8":
        if not given and len(broken) >= _LEAST and not whole:
            raise DataError(_not_utf8(name, broken))
    elif encoding == "iso8859-1" and _of_windows(broken):
        raise DataError(f"{name} has letters or quotes that latin-1 does not have. Give --encoding cp1252.")
    elif len(whole) >= _LEAST and not broken:
        return "utf-8"
    return encoding


def differs(encoding: str, given: str | None) -> bool:
    """Whether `encoding_of` found another encoding than was given, or than UTF-8 where none was."""
    said = _known(given or "utf-8").removesuffix("-le").removesuffix("-be")  # a mark tells the order of bytes
    return not encoding.startswith(said)


_AGAIN = "Give the --encoding that it was written in, or leave it out."


def _known(given: str) -> str:
    try:
        b"ab".decode(given, "ignore")
    except LookupError:  # of encodings of bytes, such as hex, too
        raise UsageError(
            f"Unknown encoding {given!r}; --encoding takes utf-8, utf-16, latin-1, cp1252, shift_jis, gb18030 or any "
            "other that Python knows."
        ) from None
    return codecs.lookup(given).name.replace("utf-8-sig", "utf-8")


def _unmarked_utf16(start: bytes) -> str | None:
    """UTF-16 without a mark, which every second byte tells where most characters are ASCII."""
    even, odd = start[0::2].count(0), start[1::2].count(0)
    half = len(start) // 2
    if max(even, odd) * 4 > half and min(even, odd) * 100 <= half:
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


def _beyond_ascii(start: bytes) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Lines by their number that are not UTF-8, and those that are and hold more than ASCII."""
    broken: list[tuple[int, bytes]] = []
    whole: list[tuple[int, bytes]] = []
    if not start.isascii():
        lines = start.split(b"\n")
        for number, line in enumerate(lines[:-1] if len(start) >= LOOK else lines, 1):
            if not line.isascii():
                try:
                    line.decode()
                    whole.append((number, line))
                except UnicodeDecodeError:
                    broken.append((number, line))
    return broken, whole


def is_utf8(start: bytes) -> bool:
    """Whether no line of a file's first LOOK bytes is anything but UTF-8."""
    return not _beyond_ascii(start)[0]


def _not_utf8(name: str, broken: list[tuple[int, bytes]]) -> str:
    number, line = broken[0]
    told = f"{name} is not UTF-8: {len(broken)} of its first lines are not, and none beyond ASCII is; the first is line"
    try:
        guess = "cp1252" if _of_windows(broken) else "latin-1"
        read = _around(line.decode(guess))
    except UnicodeDecodeError:
        return f"{told} {number}. Name its encoding: --encoding shift_jis, gb18030, cp1251, ..."
    return (
        f"{told} {number}, which reads {read!r} in {guess}. If that is right, give --encoding {guess}, else the encoding "
        "that it was written in. (--encoding utf-8 leaves such rows out.)"
    )


def _of_windows(lines: list[tuple[int, bytes]]) -> bool:
    """Whether there are bytes that are control characters in Latin-1, and letters and quotes in Windows' encoding."""
    return any(0x80 <= byte < 0xA0 for _, line in lines for byte in line)


def _around(text: str) -> str:
    """The words around the first character that is not ASCII."""
    place = next(place for place, char in enumerate(text) if not char.isascii())
    return text[max(place - 20, 0) : place + 20].strip()


def separator_bytes(given: str) -> bytes:
    r"""A separator as the user writes it; `\t` and `tab` are one. Raises UsageError for what can be none."""
    found = {"\\t": "\t", "tab": "\t"}.get(given, given)
    if not found or any(char in '"\r\n' for char in found):
        raise UsageError(f"--sep takes what stands between two cells, such as ';', '::' or tab; got {given!r}.")
    return found.encode()


class _Recoder(io.RawIOBase):
    def __init__(
        self, raw: IO[bytes], encoding: str, separator: bytes | None, name: str, saw: Callable[[bytes], object] | None
    ) -> None:
        self._raw, self._encoding, self._separator, self._name, self._saw = raw, encoding, separator, name, saw
        # UTF-8 passes as it is: rows of other bytes are counted by whoever reads them.
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        self._line, self._rest, self._ready = 1, b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target) -> int:
        while not self._ready:
            piece = self._raw.read(1 << 20)
            if piece and self._saw:
                self._saw(piece)
            self._ready = memoryview(self._split(self._utf8(piece), last=not piece))
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
            made = self._decoder.decode(piece, not piece).encode()
        except UnicodeError as error:
            raise DataError(
                f"{self._name} cannot be read as {self._encoding}: {error} (after line {self._line}). {_AGAIN}"
            ) from None
        self._line += made.count(b"\n")
        return made

    def _split(self, content: bytes, last: bool) -> bytes:
        if self._separator is None:
            return content
        content = self._rest + content
        end = len(content) if last else content.rfind(b"\n") + 1  # no separator goes over the end of a line
        self._rest = content[end:]
        return content[:end].replace(SEPARATOR, b" ").replace(self._separator, SEPARATOR)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def recoded(
    raw: IO[bytes], encoding: str, separator: bytes | None, name: str, saw: Callable[[bytes], object] | None
) -> IO[bytes]:
    """A file in UTF-8, with SEPARATOR in place of a separator of several bytes.

    Args:
        separator: In UTF-8; None where it stays as it is.
        saw: Is called with the bytes of the file itself as they are read.

    Raises:
        DataError: While it is read, if it is not in that encoding.
    """
    return io.BufferedReader(_Recoder(raw, encoding, separator, name, saw), 1 << 20)
