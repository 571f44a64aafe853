"""One self-contained HTML page from sections of text, tables and embedded pictures.

Nothing is fetched: style and pictures are in the page. It needs no script; a page that has one
allows this script by its hash and nothing else (Content-Security-Policy). Functions take text and
return `Html`; they escape everything that is not `Html`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NewType

Html = NewType("Html", str)

# Pixels of a picture for one of the page, which is laid out for 96 an inch.
PIXEL_RATIO = 150 / 96

# A longer word does not fit a tile at the size of figures.
_TILE_LETTERS = 10

# Below this width the narrow variant of a picture is shown.
_NARROW_SCREEN = "(max-width: 42rem)"


class Picture(NamedTuple):
    """A picture in one or two arrangements.

    Attributes:
      png: the file; a photo may be a JPEG file too.
      alt: describes it for readers who cannot see it.
      narrow: another arrangement for a phone; None shows the same everywhere.
      kind: `plot` (drawn on white, inverted on dark screens) or `photo` (never altered).
      label: text above it.
    """

    png: bytes
    alt: str
    narrow: bytes | None = None
    kind: str = "plot"
    label: str = ""


class Card(NamedTuple):
    """A card of a gallery.

    Attributes:
      picture: None where there is none.
      facts: lines below it, label → value.
      marked: whether it is framed.
      data: values for the script, name → value: a `score`, a `kind` (`normal`, `defect` or none).
    """

    picture: Picture | None
    facts: Mapping[str, str]
    marked: bool = False
    data: Mapping[str, object] = {}


class Stop(NamedTuple):
    """A threshold that a slider stops at.

    Attributes:
      threshold: above which a sample raises an alarm.
      wide: where the line is in the picture, from 0 (left) to 1.
      narrow: the same in the picture for a phone.
      outcome: a sentence on the defects that this threshold finds.
    """

    threshold: float
    wide: float
    narrow: float
    outcome: str


class Section(NamedTuple):
    """A heading, its anchor (letters, digits, hyphens) and the blocks below it."""

    title: str
    anchor: str
    blocks: Sequence[Html]


def text(value: object) -> Html:
    """Returns a value as text in which no character is markup."""
    return Html(html.escape(str(value), quote=True))


def joined(parts: Sequence[Html]) -> Html:
    """Returns fragments one after the other."""
    return Html("\n".join(parts))


def paragraph(value: object, kind: str = "") -> Html:
    """Returns a paragraph of text; `kind` is a class of the style sheet."""
    return Html(f"<p{_class(kind)}>{text(value)}</p>")


def heading(value: object) -> Html:
    """Returns a heading within a section."""
    return Html(f"<h3>{text(value)}</h3>")


def missing(reason: str, command: str) -> Html:
    """Returns a note on a part that the page cannot show: why, and the command that makes it."""
    return Html(f'<p class="missing">{text(reason)} <code>{text(command)}</code></p>')


def details(summary: str, content: Html) -> Html:
    """Returns content that is folded until the reader opens it."""
    return Html(f"<details><summary>{text(summary)}</summary>\n{content}\n</details>")


def tiles(values: Mapping[str, str]) -> Html:
    """Returns the headline figures: label → figure; a long word, such as a name, gets more room."""

    def kind(value: str) -> str:
        return "long" if max(map(len, value.split()), default=0) > _TILE_LETTERS else "short"

    cells = "".join(
        f"<div{_class(kind(value))}><dt>{text(label)}</dt><dd>{text(value)}</dd></div>"
        for label, value in values.items()
    )
    return Html(f'<dl class="tiles">{cells}</dl>')


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    caption: str = "",
    strong: Sequence[int] = (),
    data: Sequence[Mapping[str, object]] | None = None,
) -> Html:
    """Returns a table in a box of its own, which scrolls where the table is wider.

    Args:
      header: names of the columns.
      rows: cells, every one escaped.
      caption: text below, which says what is shown and in which units.
      strong: numbers of the rows that stand out.
      data: values of each row for the script, as of a `Card`. The script sorts such a table, and
        its text wraps on a narrow screen, so that it never scrolls.
    """
    numeric = [_is_numeric([row[place] for row in rows]) for place in range(len(header))]
    head = "".join(
        f'<th scope="col"{_class("number" if number else "")}>{text(name)}</th>'
        for name, number in zip(header, numeric, strict=True)
    )
    facts = [_fact(name) if data else "" for name in header]
    lines = []
    for place, row in enumerate(rows):
        cells = "".join(
            f"<td{_class('number' if number else '')}{fact}>{text(cell)}</td>"
            for cell, number, fact in zip(row, numeric, facts, strict=True)
        )
        marks = _class("strong" if place in strong else "") + _data(data[place] if data else {})
        lines.append(f"<tr{marks}>{cells}</tr>")
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    label = text(caption or ", ".join(header))
    return Html(
        f'<figure class="table"><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{label}"><table{_class("sortable" if data else "")}>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + f"\n</tbody></table></div>{below}</figure>"
    )


def figure(pictures: Sequence[Picture], caption: str, title: str = "") -> Html:
    """Returns pictures side by side, as far as the screen is wide, over one caption."""
    above = f'<p class="title">{text(title)}</p>' if title else ""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    shown = "".join(_labelled(picture) for picture in pictures)
    return Html(f'<figure>{above}<div class="pictures">{shown}</div>{below}</figure>')


def _labelled(picture: Picture) -> str:
    above = f'<p class="label">{text(picture.label)}</p>' if picture.label else ""
    return f"<div>{above}{_image(picture)}</div>"


def gallery(cards: Sequence[Card], anchor: str = "") -> Html:
    """Returns cards in a grid.

    Args:
      cards: in their order.
      anchor: letters, digits, hyphens; with it a click on a picture shows it whole: over the page
        by the script, in its place without.
    """
    items = (
        _card(card, f"{anchor}-{number}" if anchor else "") for number, card in enumerate(cards, 1)
    )
    return Html('<ol class="gallery">' + "".join(items) + "</ol>")


def _card(card: Card, anchor: str) -> str:
    shown = '<span class="blank">no picture</span>'
    if card.picture is not None:
        shown = _image(card.picture)
        if anchor:
            shown = f'<a class="whole" href="#{anchor}" title="Show it whole">{shown}</a>'
    lines = "".join(
        f"<div><dt>{text(name)}</dt><dd{_fact(name) if card.data else ''}>{text(value)}</dd></div>"
        for name, value in card.facts.items()
    )
    name = f' id="{anchor}"' if anchor else ""
    marks = _class("marked" if card.marked else "") + _data(card.data)
    return f"<li{name}{marks}>{shown}<dl>{lines}</dl></li>"


def slider(stops: Sequence[Stop], start: int) -> Html:
    """Returns a slider over thresholds, and the outcome of the one that it stops at. It moves the
    line over the first plot of its section and marks the alarms on the whole page.

    Args:
      stops: ascending; numbers are finite.
      start: number of the one that it starts at; without the script, the only one.
    """
    values = text(json.dumps(stops, allow_nan=False))
    return Html(
        f'<div class="slider" data-stops="{values}"><p class="move" hidden>'
        f'<label>Move the threshold <input type="range" min="0" max="{len(stops) - 1}" step="1" '
        f'value="{start}"></label> <button type="button">Back</button></p>'
        f'<p class="outcome" aria-live="polite">{text(stops[start].outcome)}</p></div>'
    )


def page(
    title: str, lead: str, top: Sequence[Html], sections: Sequence[Section], script: str = ""
) -> str:
    """Returns the whole document.

    Args:
      title: of the page.
      lead: one sentence below it.
      top: blocks before the first section.
      sections: listed in the table of contents.
      script: runs once the page is loaded; the page allows no other.
    """
    contents = "".join(
        f'<li><a href="#{text(section.anchor)}">{text(section.title)}</a></li>'
        for section in sections
    )
    body = "\n".join(
        f'<section id="{text(section.anchor)}"><h2>{text(section.title)}</h2>\n'
        f"{joined(section.blocks)}\n</section>"
        for section in sections
    )
    return (
        f"{HEAD}{_policy(script)}<title>{text(title)}</title>\n<style>{_STYLE}</style>\n"
        "</head>\n<body>\n"
        f"<header><h1>{text(title)}</h1><p>{text(lead)}</p></header>\n"
        f'<nav aria-label="Contents"><p>Contents</p><ol>{contents}</ol></nav>\n'
        f"<main>\n{joined(top)}\n{body}\n</main>\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def _policy(script: str) -> str:
    """Returns the line by which a browser runs this script and style and loads nothing."""
    scripts = f"script-src {_hash(script)}; " if script else ""
    return (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"{scripts}style-src {_hash(_STYLE)}; img-src data:; base-uri 'none'; "
        "form-action 'none'\">\n"
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def png_size(png: bytes) -> tuple[int, int]:
    """Returns width and height of a PNG file, in its pixels."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG file")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def _image(picture: Picture) -> str:
    source = ""
    if picture.narrow is not None:
        source = (
            f'<source media="{_NARROW_SCREEN}" srcset="{_data_uri(picture.narrow)}"'
            f"{_dimensions(picture.narrow)}>"
        )
    return (
        f'<picture>{source}<img class="{text(picture.kind)}" src="{_data_uri(picture.png)}"'
        f'{_dimensions(picture.png)} alt="{text(picture.alt)}"></picture>'
    )


def _data_uri(file: bytes) -> str:
    kind = "jpeg" if _is_jpeg(file) else "png"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}"


def _is_jpeg(file: bytes) -> bool:
    return file.startswith(b"\xff\xd8\xff")


def _dimensions(png: bytes) -> str:
    if _is_jpeg(png):
        return ""
    width, height = (round(pixels / PIXEL_RATIO) for pixels in png_size(png))
    return f' width="{max(width, 1)}" height="{max(height, 1)}"'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _fact(name: str) -> str:
    return f' data-fact="{text(name)}"'


def _data(values: Mapping[str, object]) -> str:
    return "".join(f' data-{name}="{text(value)}"' for name, value in values.items())


def _is_numeric(cells: Sequence[object]) -> bool:
    filled = [str(cell) for cell in cells if str(cell)]
    return bool(filled) and all(cell[0].isdigit() or cell[0] in "-−(±" for cell in filled)


# How every page begins.
HEAD = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n'
)

_STYLE = """
:root {
  --page: #f4f5f7; --card: #ffffff; --ink: #1c2127; --soft: #5c6670; --line: #dfe3e8;
  --accent: #2f6db3; --alarm: #c4500f; --note: #fff6e5; --note-line: #e9c46a;
  --shade: #00000033;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1f1f1f; --ink: #e6e8ea; --soft: #a3abb3; --line: #363c42;
    --accent: #7fb2ea; --alarm: #ff9a5c; --note: #2b2618; --note-line: #8a6d1f;
    --shade: #ffffff33;
  }
  img.plot { filter: invert(.88) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 0 1rem 4rem; max-width: 84rem; color: var(--ink);
  background: var(--page); line-height: 1.5; overflow-wrap: anywhere;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
header { padding: 2rem 0 1rem; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -.01em; }
header p { margin: .4rem 0 0; color: var(--soft); max-width: 48rem; }
h2 { margin: 0 0 .5rem; font-size: 1.3rem; }
h3 { margin: 1.6rem 0 .4rem; font-size: 1.02rem; }
p { max-width: 48rem; margin: .4rem 0 .8rem; }
a { color: var(--accent); }
code { font-size: .87em; padding: .1em .35em; border-radius: 4px; background: var(--page); }
nav p { margin: 0 0 .3rem; font-weight: 600; font-size: .85rem; color: var(--soft); }
nav ol { margin: 0; padding: 0; list-style: none; }
nav a { display: inline-block; padding: .15rem 0; text-decoration: none; }
nav a:hover { text-decoration: underline; }
nav, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
nav { padding: .8rem 1rem; margin-bottom: 1rem; }
nav ol { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; }
main { min-width: 0; }
section { padding: 1.1rem 1.2rem 1.2rem; margin-bottom: 1rem; scroll-margin-top: 1rem; }
figure { margin: .8rem 0 1.4rem; }
figcaption { max-width: 48rem; margin-top: .45rem; font-size: .87rem; color: var(--soft); }
.title { margin: 0 0 .3rem; font-weight: 600; }
.label { margin: 0 0 .25rem; font-size: .87rem; color: var(--soft); }
section > :last-child { margin-bottom: 0; }
.pictures { display: flex; flex-wrap: wrap; gap: .6rem 2rem; align-items: flex-start; }
img { display: block; max-width: 100%; height: auto; }
img.photo { border-radius: 3px; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 0 0 1rem; }
.tiles div {
  flex: 1 1 10rem; display: flex; flex-direction: column; justify-content: space-between;
  padding: .7rem .9rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px;
}
.tiles dt { font-size: .8rem; color: var(--soft); }
.tiles dd { margin: 0; font-size: 1.35rem; font-weight: 650; line-height: 1.3; }
.tiles .long { flex: 2 1 15rem; }
.tiles .long dd { font-size: 1.05rem; }
.pictures > div { min-width: 0; max-width: 100%; }
.scroll {
  overflow-x: auto; border: 1px solid var(--line); border-radius: 8px;
  background:
    linear-gradient(to right, var(--card) 60%, transparent) left / 2rem 100% no-repeat local,
    linear-gradient(to left, var(--card) 60%, transparent) right / 2rem 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / .7rem 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) right / .7rem 100% no-repeat scroll,
    var(--card);
}
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td {
  padding: .32rem .7rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line);
}
tbody tr:last-child td { border-bottom: 0; }
th { font-weight: 600; color: var(--soft); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.strong td { font-weight: 650; background: var(--page); }
.missing {
  padding: .6rem .8rem; border-left: 4px solid var(--note-line); border-radius: 4px;
  background: var(--note); font-size: .93rem;
}
.missing code { display: block; margin-top: .3rem; overflow-x: auto; }
.slider { margin: .8rem 0; }
.slider .move { display: flex; flex-wrap: wrap; gap: .5rem .8rem; align-items: center; }
.slider .move[hidden] { display: none; }
.slider label { display: flex; flex: 1 1 16rem; flex-wrap: wrap; gap: .2rem .8rem; }
.slider input { flex: 1 1 12rem; min-width: 0; accent-color: var(--accent); }
.under-line { position: relative; display: block; width: fit-content; }
.line { position: absolute; top: 0; bottom: 0; border-left: 2px solid var(--alarm); }
button {
  font: inherit; color: inherit; padding: .1rem .7rem; background: var(--page);
  border: 1px solid var(--line); border-radius: 6px; cursor: pointer;
}
th button { padding: 0; border: 0; background: none; text-align: inherit; }
th[aria-sort="ascending"] button::after { content: " ↑"; }
th[aria-sort="descending"] button::after { content: " ↓"; }
.sortable th, .sortable td { white-space: normal; }
.sortable th, .sortable .number, .sortable [data-fact="alarm"] { overflow-wrap: normal; }
.sortable [data-fact="kind"] { min-width: 4.6rem; }
dialog {
  width: min(60rem, 94vw); max-height: 94vh; padding: .8rem; color: var(--ink);
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
}
dialog::backdrop { background: #000000aa; }
dialog img { width: 100%; height: 68vh; object-fit: contain; image-rendering: pixelated; }
dialog dl { margin: .6rem 0; font-size: .9rem; }
dialog dl div { display: flex; gap: .8rem; }
dialog dt { min-width: 4rem; color: var(--soft); }
dialog dd { margin: 0; min-width: 0; }
details { margin: .8rem 0; }
summary { cursor: pointer; font-weight: 600; }
.gallery {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .7rem;
  margin: .8rem 0; padding: 0; list-style: none;
}
.gallery li { padding: .55rem; border: 1px solid var(--line); border-radius: 8px; }
.gallery li.marked { border: 2px solid var(--alarm); padding: calc(.55rem - 1px); }
.gallery img, .blank {
  width: 100%; height: 8rem; object-fit: contain; background: var(--page);
  image-rendering: pixelated; border-radius: 4px;
}
.gallery a { display: block; cursor: zoom-in; }
.gallery li:target { grid-column: 1 / -1; scroll-margin-top: 1rem; }
.gallery li:target img { height: 80vh; }
.blank { display: grid; place-items: center; color: var(--soft); font-size: .85rem; }
.gallery dl { margin: .4rem 0 0; font-size: .8rem; }
.gallery dl div { display: flex; gap: .5rem; justify-content: space-between; }
.gallery dt { color: var(--soft); white-space: nowrap; }
.gallery dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; min-width: 0; }
@media (min-width: 68rem) {
  body { display: grid; grid-template-columns: 12rem minmax(0, 1fr); column-gap: 1.5rem; }
  header { grid-column: 1 / -1; }
  nav { position: sticky; top: 1rem; align-self: start; }
  nav ol { display: block; }
}
@media (max-width: 42rem) {
  body { padding: 0 .7rem 3rem; }
  header { padding-top: 1.3rem; }
  h1 { font-size: 1.5rem; }
  section { padding: .9rem .8rem; }
  table { font-size: .8rem; }
  th, td { padding: .3rem .4rem; }
  .tiles div { flex-basis: 8rem; }
  .tiles dd { font-size: 1.15rem; }
  .gallery { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media print {
  body { display: block; background: none; }
  nav { display: none; }
  section { border: 0; break-inside: auto; }
  figure { break-inside: avoid; }
}
"""
