"""Makes build/technician.html of docs/technician.md: one sheet of A4, to be printed and left beside the Pi.

The page is written once, as Markdown; this lays it out. Print it from any browser.
"""

from pathlib import Path

from markdown_it import MarkdownIt

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCE = CHECKOUT / "docs" / "technician.md"
PAGE = CHECKOUT / "build" / "technician.html"

STYLE = """
@page { size: A4; margin: 11mm 13mm; }
body { font: 9pt/1.22 "Liberation Sans", Arial, sans-serif; color: #000; max-width: 184mm; margin: auto; }
h1 { font-size: 15pt; margin: 0 0 1mm; }
h2 { font-size: 11.5pt; margin: 2.2mm 0 0.8mm; border-bottom: 0.4mm solid #000; }
p { margin: 1mm 0; }
table { border-collapse: collapse; width: 100%; }
th, td { border: 0.2mm solid #888; padding: 0.6mm 1.5mm; text-align: left; vertical-align: top; }
thead tr:not(:has(th:not(:empty))) { display: none; }
code { font: 8.3pt "Liberation Mono", monospace; font-weight: bold; }
pre { margin: 1mm 0; padding: 1mm 2mm; border: 0.4mm solid #000; }
"""


def page_of(markdown: str) -> str:
    """The whole page, with its style."""
    body = MarkdownIt("commonmark").enable("table").render(markdown)
    return f'<!doctype html>\n<meta charset="utf-8">\n<title>scout-agent</title>\n<style>{STYLE}</style>\n{body}'


def main() -> None:
    """Write the page and say where it is."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page_of(SOURCE.read_text()))
    print(f"{PAGE.relative_to(CHECKOUT)}: open it in a browser and print it on A4")


if __name__ == "__main__":
    main()
