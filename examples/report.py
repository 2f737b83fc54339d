"""What the tour shows, and how: sections with tables and pictures, in the terminal and as one HTML page."""

from __future__ import annotations

import html
import importlib.util
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """Text cells; the first column is flush left, the others flush right unless `left` says otherwise."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: bool = False


@dataclass(frozen=True)
class Picture:
    """A caption, and a function that draws on an empty matplotlib figure of the given size in inches."""

    name: str
    caption: str
    draw: Callable[[Any], None]
    size: tuple[float, float] = (6.4, 4.0)


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    tables: list[Table]
    remarks: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def publish(title: str, sections: Sequence[Callable[[], Section]], output: Path) -> None:
    """Run the sections one by one, print each, and write the page with the pictures."""
    start, done = time.perf_counter(), []
    for make in sections:
        began = time.perf_counter()
        done.append(make())
        print_section(done[-1], time.perf_counter() - began)
    if importlib.util.find_spec("matplotlib") is None:
        print('\nThe pictures need matplotlib: python -m pip install "lrla[plot]"')
        return
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for section in done:
        for picture in section.pictures:
            save(picture, output)
    page = output / "index.html"
    page.write_text(PAGE.format(title=title, body="".join(map(section_html, done))), "utf-8")
    print(f"\nPictures: {page}  ({time.perf_counter() - start:.0f} s in all)")


# ---------------------------------------------------------------------------------------------------- terminal


def print_section(section: Section, seconds: float) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{section.title}{plain}  ({seconds:.1f} s)")
    print_wrapped(section.text)
    for table in section.tables:
        print()
        print_table(table)
    print()
    for remark in section.remarks:
        print_wrapped(remark)


def print_wrapped(text: str) -> None:
    print(textwrap.fill(text, 110, initial_indent="  ", subsequent_indent="  "))


def print_table(table: Table) -> None:
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    for cells in (table.header, tuple("-" * width for width in widths), *table.rows):
        padded = [
            cell.ljust(width) if table.left or place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        print(("  " + "  ".join(padded)).rstrip())


# ---------------------------------------------------------------------------------------------------- page


def save(picture: Picture, output: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=picture.size, layout="constrained")
    picture.draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(output / f"{picture.name}.png", dpi=160)


def section_html(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>\n<p>{html.escape(section.text)}</p>"]
    parts += [table_html(table) for table in section.tables]
    parts += [f"<p>{html.escape(remark)}</p>" for remark in section.remarks]
    parts += [
        f'<figure><img src="{p.name}.png" alt="{html.escape(p.caption)}" style="max-width: {p.size[0] * 1.4:.0f}in">'
        f"<figcaption>{html.escape(p.caption)}</figcaption></figure>"
        for p in section.pictures
    ]
    return "\n".join(parts)


def table_html(table: Table) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in table.rows)
    kind = "words" if table.left else "numbers"
    return f'<table class="{kind}"><thead>{line(table.header, "th")}</thead>\n<tbody>{body}</tbody></table>'


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #222 }}
h2 {{ margin-top: 3rem }}
table {{ border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; display: block; overflow-x: auto }}
th, td {{ padding: 0.25rem 0.8rem; border-bottom: 1px solid #ddd; white-space: nowrap; text-align: right }}
th:first-child, td:first-child, .words th, .words td {{ text-align: left }}
.words td {{ white-space: normal }}
figure {{ margin: 1.5rem 0 }}
img {{ width: 100%; height: auto }}
figcaption {{ font-size: 0.9rem; color: #555 }}
</style>
<h1>{title}</h1>
{body}
</html>
"""
