from __future__ import annotations

import re
import string
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.errors import TextError
from speech.tokenizer import BLANK, CharTokenizer, normalise_text

ALPHABET = " '" + string.ascii_lowercase
TYPED = st.text(alphabet=string.printable + "éüßÆ’“”–—½²£€…ﬁЖ😀\u0301\u200d", max_size=40)


# --- Tokens ---------------------------------------------------------------------------------------


def test_default_alphabet_is_blank_space_apostrophe_letters() -> None:
    tokenizer = CharTokenizer()
    assert tokenizer.size == 29
    assert BLANK == 0
    assert tokenizer.encode(" 'az") == [1, 2, 3, 28]
    assert tokenizer.decode([1, 2, 3, 28]) == " 'az"


@settings(deadline=None)
@given(st.text(alphabet=ALPHABET))
def test_decode_inverts_encode(text: str) -> None:
    tokenizer = CharTokenizer()
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert BLANK not in tokens


def test_encode_names_the_character_and_its_position() -> None:
    with pytest.raises(
        TextError, match=r"'Ж' \(U\+0416 CYRILLIC CAPITAL LETTER ZHE\) at position 3"
    ):
        CharTokenizer().encode("ab Ж")
    with pytest.raises(TextError, match=r"U\+0007 unnamed"):
        CharTokenizer().encode("\a")


@pytest.mark.parametrize(("token", "reason"), [(0, "the blank"), (29, "unknown"), (-1, "unknown")])
def test_decode_refuses_tokens_that_are_no_characters(token: int, reason: str) -> None:
    with pytest.raises(TextError, match=f"token {token} at position 1 is {reason}"):
        CharTokenizer().decode([3, token])


def test_tokens_txt_has_one_visible_symbol_a_line(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    CharTokenizer("b a").save(path)
    assert path.read_text() == "<blank>\nb\n<space>\na\n"
    loaded = CharTokenizer.load(path)
    assert loaded.alphabet == ("b", " ", "a")
    assert loaded.encode("a b") == [3, 2, 1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "expected <blank>, got ''"),
        ("a\nb\n", "expected <blank>, got 'a'"),
        ("<blank>\n", "no characters"),
        ("<blank>\na\nb\na\n", "token 3 repeats the character 'a'"),
        ("<blank>\na\n<blank>\n", "token 2 must be one character, got '<blank>'"),
        ("<blank>\na\n\nb\n", "token 2 must be one character, got ''"),
        ("<blank>\na\n\x07\n", "token 2 must be one character, got '\\x07'"),
        ("<blank>\n<space>\n \n", "token 2 repeats the character ' '"),
    ],
)
def test_load_refuses_in_one_line(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes(content.encode())
    with pytest.raises(TextError) as caught:
        CharTokenizer.load(path)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_says_that_a_file_is_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="cannot read"):
        CharTokenizer.load(tmp_path / "none.txt")
    (tmp_path / "tokens.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(TextError, match="cannot read"):
        CharTokenizer.load(tmp_path / "tokens.txt")


# --- The normaliser -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        # case, punctuation, spaces
        ("  Hello,\tWORLD!\n", "hello world"),
        ("well-known -- yes—no", "well known yes no"),
        ("end.Next (one) [two] {three} a/b a_b", "end next one two three a b a b"),
        ("U.S.A. and e.g. this", "u s a and e g this"),
        ("", ""),
        ("...", ""),
        # apostrophes
        ("don’t don`t O'Neil's", "don't don't o'neil's"),
        ("'quoted' \"so\" ‘too’", "quoted so too"),
        ("the debtors' side, rock 'n' roll", "the debtors side rock n roll"),
        # letters
        ("Café naïve Ångström", "cafe naive angstrom"),
        ("Straße Æsop ﬁne Łódź İstanbul", "strasse aesop fine lodz istanbul"),
        ("so\u00adft \ufeffbom", "soft bom"),
        # abbreviations and symbols
        ("Mr. and Mrs Smith, Dr. No", "mister and missus smith doctor no"),
        ("St. John's 1st. last best.", "saint john's first last best"),
        ("etc. Jones & Co", "et cetera jones and co"),
        ("Gen. Lee vs. the gen", "general lee versus the gen"),
        ("50% of 20°", "fifty percent of twenty degrees"),
        # years
        (
            "1100 1462 1900 1905 1999",
            "eleven hundred fourteen sixty two nineteen hundred "
            "nineteen oh five nineteen ninety nine",
        ),
        (
            "1066 2000 2009 2010",
            "one thousand and sixty six two thousand two thousand and nine twenty ten",
        ),
        ("the 1990s, 1990's and 20s", "the nineteen nineties nineteen nineties and twenties"),
        ("'66s", "sixty sixes"),
        # cardinals, ordinals, decimals
        ("0 7 21 100 101", "zero seven twenty one one hundred one hundred and one"),
        ("1,234 1,000,000", "one thousand two hundred and thirty four one million"),
        (
            "007 1234567890123",
            "zero zero seven one two three four five six seven eight nine zero one two three",
        ),
        ("1st 2nd 3rd 11th 1,000th", "first second third eleventh one thousandth"),
        ("3.14 1.2.3 .5 5.", "three point one four one point two point three point five five"),
        ("beverages.3199 Street", "beverages three thousand one hundred and ninety nine street"),
        ("-5 -$5 1914-18", "minus five minus five dollars nineteen fourteen eighteen"),
        ("No. 5 no. Yes", "number five no yes"),
        (
            "2½ 1/2 3-1/4 ⅔ 3/4/1999",
            "two and a half one half three and a quarter two thirds "
            "three four nineteen ninety nine",
        ),
        ("B2B 10kg m²", "b two b ten kg m two"),
        # money
        (
            "$1 $5 $3.50 $1.01 $0.05 $.50",
            "one dollar five dollars three dollars and fifty cents "
            "one dollar and one cent five cents fifty cents",
        ),
        (
            "£1,000 £2.5 million €1.00 £1.01",
            "one thousand pounds two point five million pounds one euro one pound and one penny",
        ),
        ("$5.125", "five point one two five dollars"),
        # times
        ("10:30 10:05 10:00 18:30", "ten thirty ten oh five ten o'clock eighteen thirty"),
        ("10:00 a.m. 5pm 6:15 pm", "ten a m five p m six fifteen p m"),
    ],
)
def test_normalise_text(written: str, spoken: str) -> None:
    assert normalise_text(written) == spoken


@pytest.mark.parametrize("text", ["Привет", "你好", "yes 😀", "3 × 4", "a\x93b", "٣"])
def test_characters_without_a_spoken_form_stay_to_be_reported(text: str) -> None:
    with pytest.raises(TextError, match="is not in the alphabet"):
        CharTokenizer().encode(normalise_text(text))


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.text(max_size=30), TYPED))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert once == " ".join(once.split())


def test_an_invisible_character_does_not_save_an_accent() -> None:
    assert normalise_text("A\u200b\u0300") == "a"


def test_every_composed_character_is_normalised_for_good() -> None:
    composed = [c for c in map(chr, range(sys.maxunicode)) if unicodedata.decomposition(c)]
    assert len(composed) > 5000
    for character in composed:
        once = normalise_text(f"3{character}1 a{character}b")
        assert normalise_text(once) == once


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=string.printable[:-5] + "éÜ’—½£", max_size=40))
def test_typed_english_always_encodes(text: str) -> None:
    CharTokenizer().encode(normalise_text(text))


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=30))
def test_no_letter_of_another_script_is_lost(text: str) -> None:
    kept = set(unicodedata.normalize("NFKC", normalise_text(text)))
    for character in text:
        if re.match("[а-яא-ת\u4e00-\u9fff]", character):
            assert character in kept


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10**15))
def test_every_whole_number_is_spelled_out(number: int) -> None:
    for written in (str(number), f"{number:,}", f"${number}", f"{number}th", f"{number}s"):
        spoken = normalise_text(written)
        assert re.fullmatch("[a-z]+( [a-z]+)*", spoken), (written, spoken)
