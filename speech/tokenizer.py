"""Text to tokens and back, and the normaliser that turns written English into spoken letters.

``normalise_text`` is part of every reported error rate: its name, ``NORMALISER``, is written beside
each number, and any change to what it returns needs a new name.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path

from speech.errors import TextError, reason_of

BLANK = 0
NORMALISER = "english-1"
DEFAULT_ALPHABET = (" ", "'", *string.ascii_lowercase)

_BLANK_NAME = "<blank>"
_SPACE_NAME = "<space>"


class CharTokenizer:
    """Characters as tokens: token 0 is the CTC blank, token i is ``alphabet[i - 1]``."""

    def __init__(self, alphabet: Sequence[str] = DEFAULT_ALPHABET) -> None:
        """Take the characters in token order, without the blank. Raises TextError on a bad one."""
        self.alphabet = tuple(alphabet)
        _check_alphabet(self.alphabet, "the alphabet")

    @property
    def size(self) -> int:
        """V, the number of tokens with the blank."""
        return len(self.alphabet) + 1

    @cached_property
    def _token_of(self) -> dict[str, int]:
        return {character: token for token, character in enumerate(self.alphabet, start=BLANK + 1)}

    def encode(self, text: str) -> list[int]:
        """The L tokens of a normalised text; TextError names the first foreign character."""
        token_of = self._token_of
        try:
            return [token_of[character] for character in text]
        except KeyError:
            position = next(i for i, character in enumerate(text) if character not in token_of)
            raise TextError(self._foreign_character(text, position)) from None

    def _foreign_character(self, text: str, position: int) -> str:
        character = text[position]
        excerpt = text[max(0, position - 15) : position + 15]
        name = unicodedata.name(character, "unnamed character")
        return (
            f"character {character!r} (U+{ord(character):04X} {name}) at position {position} "
            f"(near {excerpt!r}) is not in the alphabet {''.join(self.alphabet)!r}"
        )

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens that hold no blank; TextError names a token that is no character."""
        characters = []
        for position, token in enumerate(tokens):
            if not BLANK < token < self.size:
                kind = "the blank" if token == BLANK else "unknown"
                raise TextError(
                    f"token {token} at position {position} is {kind}; "
                    f"characters are tokens 1 to {self.size - 1}"
                )
            characters.append(self.alphabet[token - 1])
        return "".join(characters)

    def save(self, path: str | Path) -> None:
        """Write ``tokens.txt``: one symbol a line in token order, blank and space by name."""
        symbols = [_BLANK_NAME, *(_SPACE_NAME if c == " " else c for c in self.alphabet)]
        Path(path).write_text("".join(f"{symbol}\n" for symbol in symbols), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> CharTokenizer:
        """Read what ``save`` wrote; TextError says what is wrong with the file."""
        try:
            symbols = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise TextError(f"{path}: cannot read the tokens: {reason_of(error)}") from error
        if symbols[0] != _BLANK_NAME:
            raise TextError(f"{path}:1: expected {_BLANK_NAME}, got {symbols[0]!r}")
        alphabet = [" " if symbol == _SPACE_NAME else symbol for symbol in symbols[1:]]
        _check_alphabet(alphabet, str(path))
        return cls(alphabet)


def _check_alphabet(alphabet: Sequence[str], where: str) -> None:
    if not alphabet:
        raise TextError(f"{where}: holds no characters besides the blank")
    seen: set[str] = set()
    for token, character in enumerate(alphabet, start=BLANK + 1):
        if len(character) != 1 or not character.isprintable():
            raise TextError(f"{where}: token {token} must be one character, got {character!r}")
        if character in seen:
            raise TextError(f"{where}: token {token} repeats the character {character!r}")
        seen.add(character)


# --- The normaliser -------------------------------------------------------------------------------

_APOSTROPHES = dict.fromkeys(
    map(ord, "\u2018\u2019\u201a\u201b\u2032\u02bb\u02bc\u02b9`\u00b4"), "'"
)
_DASHES = dict.fromkeys(
    map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"), "-"
)
_MARKS = _APOSTROPHES | _DASHES | {ord("\u2044"): "/"}
_MIXED_FRACTION = re.compile("(?<=[0-9])(?=[½¼¾⅓⅔])")  # NFKC turns "2½" into "21⁄2"
# Latin letters that Unicode does not decompose into a base and an accent.
_LATIN_LETTERS = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)
_ACCENTS_ON_LATIN = re.compile("(?<=[a-z])[\u0300-\u036f]+")

_SPOKEN_SYMBOLS = {
    "&": " and ",
    "%": " percent ",
    "+": " plus ",
    "=": " equals ",
    "@": " at ",
    "°": " degrees ",
}
_SILENT_SYMBOLS = "^~|<>$£€¥"

# Expanded with or without a full stop.
_ABBREVIATIONS = {
    "mr": "mister",
    "mrs": "missus",
    "messrs": "messieurs",
    "mme": "madame",
    "mlle": "mademoiselle",
    "dr": "doctor",
    "prof": "professor",
    "capt": "captain",
    "lieut": "lieutenant",
    "sgt": "sergeant",
    "jr": "junior",
    "esq": "esquire",
    "etc": "et cetera",
    "vs": "versus",
}
# Expanded only with a full stop.
_DOTTED_ABBREVIATIONS = {
    "st": "saint",
    "rev": "reverend",
    "gen": "general",
    "col": "colonel",
    "lt": "lieutenant",
    "gov": "governor",
}
_DOTTED = re.compile(rf"\b({'|'.join(_DOTTED_ABBREVIATIONS)})\.")

_PLAIN = re.compile(r"""[A-Za-z ',.;:!?"()\n-]*""")
_LOOSE_APOSTROPHE = re.compile(r"(?<![a-z])'|'(?![a-z])")


def normalise_text(text: str) -> str:
    """The words of a written English text as they are spoken: a-z, apostrophes, single spaces.

    Case, accents and punctuation go; numbers, amounts and a few abbreviations are spelled out;
    hyphens become spaces; apostrophes stay inside words only. A character that has no such form
    (another script, an emoji, a control character) is kept, so that encoding the text reports it
    instead of training on a text that was never said. Deterministic and idempotent.
    """
    if not is_plain(text):
        text = _spell_numbers(_fold(text))
    text = text.lower()
    if "." in text:
        text = _DOTTED.sub(lambda match: f" {_DOTTED_ABBREVIATIONS[match[1]]} ", text)
    text = text.translate(_punctuation())
    if "'" in text:
        text = _LOOSE_APOSTROPHE.sub(" ", text)
    words = text.split()
    if not _ABBREVIATIONS.keys().isdisjoint(words):
        words = [_ABBREVIATIONS.get(word, word) for word in words]
    return " ".join(words)


def is_plain(text: str) -> bool:
    """Whether a text is of ASCII letters, spaces and common punctuation only.

    Then each stretch between spaces is normalised on its own, whatever its neighbours.
    """
    return _PLAIN.fullmatch(text) is not None


def _fold(text: str) -> str:
    """Lower case, compatibility forms replaced, accents taken off Latin letters."""
    if text.isascii():
        return text.lower().replace("`", "'")
    text = text.translate(_invisible())  # first: one of them may part a letter from its accent
    # Translated twice, since NFKC both makes such marks and breaks up a free-standing accent.
    text = _MIXED_FRACTION.sub(" ", text).translate(_MARKS)
    text = unicodedata.normalize("NFKC", text).translate(_MARKS).casefold()
    text = unicodedata.normalize("NFKD", text).translate(_LATIN_LETTERS)
    text = _ACCENTS_ON_LATIN.sub("", text)
    return unicodedata.normalize("NFC", text)


@cache
def _invisible() -> dict[int, str]:
    """Soft hyphens, joiners and byte order marks to nothing."""
    codes = range(sys.maxunicode + 1)
    return {code: "" for code in codes if unicodedata.category(chr(code)) == "Cf"}


@cache
def _punctuation() -> dict[int, str]:
    """Punctuation marks to spaces, spoken symbols to words."""
    table = {ord(symbol): word for symbol, word in _SPOKEN_SYMBOLS.items()}
    table |= {ord(symbol): " " for symbol in _SILENT_SYMBOLS}
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)).startswith("P"):
            table.setdefault(code, " ")
    del table[ord("'")]
    return table


# --- Numbers --------------------------------------------------------------------------------------

_WHOLE = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+"
_NUMBER = re.compile(
    rf"""
      (?P<money> (?P<currency>[£$€¥])\s?(?=\.?[0-9])(?P<amount>{_WHOLE})?(?:\.(?P<part>[0-9]+))?
                 (?:\s(?P<scale>hundred|thousand|million|billion|trillion)\b)? )
    | (?P<time> (?<![0-9:])(?P<hour>[01]?[0-9]|2[0-3]):(?P<minute>[0-5][0-9])(?![0-9:])
                (?P<half>\s[ap]\sm\b)? )
    | (?P<fraction> (?<![0-9/])(?:(?P<units>[0-9]+)[\s-])?(?P<share>1/2|[13]/4|[12]/3)(?![0-9/]) )
    | (?P<ordinal> (?P<rank>{_WHOLE})(?:st|nd|rd|th)\b )
    | (?P<plural> (?P<many>[0-9]+)'?s\b )
    | (?P<decimal> (?:(?P<whole>{_WHOLE})|(?<![a-z]))(?P<digits>(?:\.[0-9]+)+) )
    | (?P<cardinal> {_WHOLE} )
    """,
    re.VERBOSE,
)
_HALF_DAY = re.compile(r"(?<=[0-9])\s?([ap])\.?m\b")
_NUMERO = re.compile(r"\bno\.\s?(?=[0-9])")
_MINUS = re.compile(r"(?<![^\s($£€])-(?=[.$£€]?[0-9])")
_DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CURRENCIES = {  # one, several, hundredths in the singular and plural
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
}
_FRACTIONS = {
    "1/2": "one half",
    "1/3": "one third",
    "2/3": "two thirds",
    "1/4": "one quarter",
    "3/4": "three quarters",
}
_LONGEST_COUNT = 12  # digits; longer runs are serial numbers, read digit by digit


def _spell_numbers(text: str) -> str:
    """Every number in a folded text replaced by its words."""
    if not any(digit in text for digit in string.digits):
        return text
    text = _HALF_DAY.sub(r" \1 m", _NUMERO.sub("number ", text))
    return _NUMBER.sub(_spell_match, _MINUS.sub(" minus ", text))


def _spell_match(match: re.Match[str]) -> str:
    return f" {_SPELLERS[str(match.lastgroup)](match)} "


def _spell_money(match: re.Match[str]) -> str:
    one, several, one_part, several_parts = _CURRENCIES[match["currency"]]
    amount, part = _digits(match["amount"] or "0"), match["part"]
    if match["scale"]:
        return f"{_number(amount, part)} {match['scale']} {several}"
    if part is None or len(part) != 2:
        return f"{_number(amount, part)} {one if amount == '1' and not part else several}"
    whole = f"{_cardinal(amount)} {one if amount == '1' else several}"
    rest = f"{_cardinal(str(int(part)))} {one_part if part == '01' else several_parts}"
    if int(part) == 0:
        return whole
    return rest if int(amount) == 0 else f"{whole} and {rest}"


def _spell_time(match: re.Match[str]) -> str:
    hour, minute = _cardinal(str(int(match["hour"]))), match["minute"]
    half = match["half"] or ""
    if minute == "00":
        return hour + (half or " o'clock")
    tens = "oh " if minute[0] == "0" else ""
    return f"{hour} {tens}{_cardinal(str(int(minute)))}{half}"


def _spell_fraction(match: re.Match[str]) -> str:
    share = _FRACTIONS[match["share"]]
    if match["units"] is None:
        return share
    return f"{_cardinal(match['units'])} and {share.replace('one ', 'a ')}"


def _spell_ordinal(match: re.Match[str]) -> str:
    return _words(int(_digits(match["rank"])), "ordinal")


def _spell_plural(match: re.Match[str]) -> str:
    words = _count(match["many"])
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith("x") else "s")


def _spell_decimal(match: re.Match[str]) -> str:
    whole = _cardinal(_digits(match["whole"])) if match["whole"] else ""
    parts = match["digits"].removeprefix(".").split(".")
    return " ".join([whole, *(f"point {_digit_by_digit(part)}" for part in parts)])


def _spell_cardinal(match: re.Match[str]) -> str:
    whole = match["cardinal"]
    return _cardinal(_digits(whole)) if "," in whole else _count(whole)


_SPELLERS: dict[str, Callable[[re.Match[str]], str]] = {
    "money": _spell_money,
    "time": _spell_time,
    "fraction": _spell_fraction,
    "ordinal": _spell_ordinal,
    "plural": _spell_plural,
    "decimal": _spell_decimal,
    "cardinal": _spell_cardinal,
}


def _digits(whole: str) -> str:
    return whole.replace(",", "")


def _number(whole: str, part: str | None) -> str:
    return _cardinal(whole) + (f" point {_digit_by_digit(part)}" if part else "")


def _count(digits: str) -> str:
    """A run of digits without separators: a year where it can be one, else a cardinal."""
    century, year = divmod(int(digits), 100)
    if len(digits) != 4 or not (11 <= century <= 19 or (century == 20 and year >= 10)):
        return _cardinal(digits)
    if year == 0:
        return f"{_words(century)} hundred"
    return f"{_words(century)} {'oh ' if year < 10 else ''}{_words(year)}"


def _cardinal(digits: str) -> str:
    if len(digits) > _LONGEST_COUNT or (len(digits) > 1 and digits[0] == "0"):
        return _digit_by_digit(digits)
    return _words(int(digits))


def _digit_by_digit(digits: str) -> str:
    return " ".join(_DIGIT_WORDS[int(digit)] for digit in digits)


def _words(number: int, kind: str = "cardinal") -> str:
    from num2words import num2words  # here, because most texts never need it

    return str(num2words(number, lang="en", to=kind))
