"""The HTML page: whole, self-contained, and harmless whatever the text."""

import base64
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from deepsvdd_jax.viz import pages
from deepsvdd_jax.viz.pages import Card, Picture, Section, Stop

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
        pages.table([word], [[word]], word, data=[{"score": word}]),
        pages.gallery([Card(picture, {word: word}, True), Card(None, {word: word})]),
        pages.gallery([Card(picture, {word: word}, True, {"kind": word})], "card"),
        pages.slider([Stop(0.5, 0.1, 0.2, word)], 0),
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
    cards = [Card(Picture(png(2, 2), "alt"), {"score": "1"}, True), Card(None, {"score": "2"})]
    reader = read(pages.gallery(cards))
    assert [found.get("class") for found in reader.named("li")] == ["marked", None]
    assert [text for tag, text in reader.texts if tag == "dd"] == ["1", "2"]
    assert ("span", "no picture") in reader.texts


def test_a_card_leads_to_itself_where_it_is_shown_whole() -> None:
    cards = [Card(Picture(png(2, 2), "alt"), {"alarm": "no"}, data={"score": 1.5, "kind": ""})] * 2
    reader = read(pages.gallery(cards, "best"))
    assert [found["href"] for found in reader.named("a")] == ["#best-1", "#best-2"]
    items = reader.named("li")
    assert [found["id"] for found in items] == ["best-1", "best-2"]
    assert items[0]["data-score"] == "1.5" and items[0]["data-kind"] == ""
    assert reader.named("dd")[0]["data-fact"] == "alarm"


def test_the_script_reads_rows_and_cells_by_name() -> None:
    data = [{"score": "2.0"}, {"score": "1.0"}]
    reader = read(pages.table(("rank", "alarm"), [(1, "yes"), (2, "no")], data=data))
    assert [found.get("data-score") for found in reader.named("tr")] == [None, "2.0", "1.0"]
    assert [found["data-fact"] for found in reader.named("td")] == ["rank", "alarm"] * 2


def test_a_photo_may_be_a_jpeg() -> None:
    buffer = io.BytesIO()
    Image.new("L", (8, 4)).save(buffer, format="JPEG")
    (image,) = read(pages.gallery([Card(Picture(buffer.getvalue(), "alt"), {})])).named("img")
    kind, _, data = (image["src"] or "").partition(",")
    assert kind == "data:image/jpeg;base64" and base64.b64decode(data) == buffer.getvalue()


def test_a_slider_holds_its_stops_and_says_what_the_first_finds() -> None:
    stops = [Stop(0.25, 0.1, 0.2, 'two "alarms"'), Stop(1.5, 0.3, 0.4, "none")]
    reader = read(pages.slider(stops, 1))
    holder = reader.named("div")[0]
    assert json.loads(holder["data-stops"] or "") == [list(stop) for stop in stops]
    (bar,) = reader.named("input")
    assert (bar["min"], bar["max"], bar["value"]) == ("0", "1", "1")
    assert ("p", "none") in reader.texts and "hidden" in reader.named("p")[0]
    with pytest.raises(ValueError, match="JSON"):
        pages.slider([Stop(math.inf, 0.1, 0.2, "none")], 0)


@pytest.mark.parametrize("script", ["", "let x = 1 < 2;"])
def test_a_page_allows_its_own_script_and_style_alone(script: str) -> None:
    page = pages.page("t", "l", [], [], script)
    (policy,) = (
        dict(part.strip().split(" ", 1) for part in str(found["content"]).split(";"))
        for found in read(page).named("meta")
        if found.get("http-equiv") == "Content-Security-Policy"
    )

    def allowed(tag: str) -> list[str]:
        contents = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (hashlib.sha256(content.encode()).digest() for content in contents)
        return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]

    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    assert [policy["style-src"]] == allowed("style")
    assert [policy[name] for name in ("script-src",) if name in policy] == allowed("script")


def test_a_long_name_gets_a_wider_tile_and_figures_do_not() -> None:
    name = "magnetic-tiles-of-november.model"
    html = pages.tiles({"model": name, "called anomalous": "120 (34.5 %)", "threshold": ""})
    assert f'<div class="long"><dt>model</dt><dd>{name}</dd></div>' in html
    assert html.count('class="long"') == 1
