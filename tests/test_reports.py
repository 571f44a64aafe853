"""The HTML page: whole, self-contained, and harmless whatever the text."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from deepsvdd_jax.viz import pages
from deepsvdd_jax.viz.pages import Picture, Section

HOSTILE = '<script>alert(\'x\')</script> " onload="alert(1)" & \n </table>'
VOID = {"meta", "img", "source", "br", "link", "input"}


class Reader(HTMLParser):
    """Collects elements with their attributes and texts; fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    assert reader.open == []
    return reader


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


def everything(word: str) -> str:
    """Returns a page with `word` in every place that takes a text."""
    picture = Picture(png(8, 8), word, png(4, 4), label=word)
    blocks = [
        pages.paragraph(word),
        pages.heading(word),
        pages.missing(word, word),
        pages.details(word, pages.paragraph(word)),
        pages.table([word], [[word]], word),
        pages.figure([picture], word, word),
        pages.gallery([(picture, {word: word}, True), (None, {word: word}, False)]),
    ]
    section = Section(word, "one", blocks)
    return pages.page(word, word, [pages.tiles({word: word})], [section])


def test_hostile_text_stays_text() -> None:
    plain, hostile = read(everything("word")), read(everything(HOSTILE))
    assert [tag for tag, _ in plain.elements] == [tag for tag, _ in hostile.elements]
    assert [set(found) for _, found in plain.elements] == [
        set(found) for _, found in hostile.elements
    ]
    for name, found in hostile.elements:
        assert name != "script" and not any(key.startswith("on") for key in found)
    shown = [text for _, text in hostile.texts if "alert" in text]
    assert shown and all(text.strip() == HOSTILE.strip() for text in shown)
    assert len(shown) == len([text for _, text in plain.texts if text.strip() == "word"])


def test_page_is_self_contained() -> None:
    page = everything("word")
    assert page.startswith("<!DOCTYPE html>")
    reader = read(page)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page)
    assert not reader.named("link") and not reader.named("script")
    for attributes in reader.named("img"):
        assert (attributes["src"] or "").startswith("data:image/png;base64,")
        assert attributes["alt"] == "word"
    for attributes in reader.named("source"):
        assert (attributes["srcset"] or "").startswith("data:image/png;base64,")


def test_page_suits_phones_and_dark_screens() -> None:
    page = everything("word")
    names = {found.get("name"): found.get("content") for found in read(page).named("meta")}
    assert names["viewport"] == "width=device-width, initial-scale=1"
    assert "prefers-color-scheme: dark" in page


def test_contents_lead_to_the_sections() -> None:
    sections = [Section("A & B", "a-b", []), Section("C", "c", [])]
    reader = read(pages.page("t", "l", [], sections))
    targets = [found["id"] for found in reader.named("section")]
    assert targets == ["a-b", "c"]
    assert [found["href"] for found in reader.named("a")] == ["#a-b", "#c"]
    assert [text for tag, text in reader.texts if tag == "a"] == ["A & B", "C"]


def test_pictures_carry_their_bytes_and_sizes() -> None:
    wide, narrow = png(300, 150), png(150, 300)
    reader = read(pages.figure([Picture(wide, "alt", narrow)], "caption"))
    (image,), (source,) = reader.named("img"), reader.named("source")
    data = (image["src"] or "").partition(",")[2]
    assert base64.b64decode(data) == wide
    assert (image["width"], image["height"]) == ("192", "96")
    assert (source["width"], source["height"]) == ("96", "192")
    assert base64.b64decode((source["srcset"] or "").partition(",")[2]) == narrow


def test_a_picture_without_a_variant_has_one_source() -> None:
    reader = read(pages.figure([Picture(png(2, 2), "alt")], "caption"))
    assert not reader.named("source") and len(reader.named("img")) == 1


def test_png_size() -> None:
    assert pages.png_size(png(31, 7)) == (31, 7)
    with pytest.raises(ValueError, match="not a PNG"):
        pages.png_size(b"GIF89a")


def test_table_aligns_numbers_and_marks_rows() -> None:
    rows = [("a", "1.5 ± 0.2", "—"), ("b", "(97.1)", "2"), ("c", "", "3")]
    reader = read(pages.table(("name", "AUROC", "mixed"), rows, "caption", strong=[2]))
    assert [found.get("class") for found in reader.named("th")] == [None, "number", None]
    cells = [text for tag, text in reader.texts if tag == "td"]
    assert cells == ["a", "1.5 ± 0.2", "—", "b", "(97.1)", "2", "c", "3"]
    assert [found.get("class") for found in reader.named("tr")] == [None, None, None, "strong"]
    assert len(reader.named("td")) == 9


def test_cards_are_marked_and_say_where_a_picture_is_missing() -> None:
    cards = [(Picture(png(2, 2), "alt"), {"score": "1"}, True), (None, {"score": "2"}, False)]
    reader = read(pages.gallery(cards))
    assert [found.get("class") for found in reader.named("li")] == ["marked", None]
    assert [text for tag, text in reader.texts if tag == "dd"] == ["1", "2"]
    assert ("span", "no picture") in reader.texts
