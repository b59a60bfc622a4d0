"""As much of SVG as the drawings need: text, lines and arrows in the colours of the page that they stand on.

Inside of a page of the site the colours are the page's own (Furo's variables). Anywhere else a drawing has colours of its
own, light or dark as the reader's system is.
"""

from __future__ import annotations

from html import escape

_STYLE = """\
.drawn{--ink:var(--color-foreground-primary,#1f2328);--faint:var(--color-foreground-muted,#59636e);\
--paper:var(--color-background-primary,#fff);--line:var(--color-background-border,#d1d9e0);\
--good:var(--color-brand-primary,#0b6e4f);--bad:#b3261e;font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){.drawn{--ink:var(--color-foreground-primary,#e6edf3);\
--faint:var(--color-foreground-muted,#9198a1);--paper:var(--color-background-primary,#0d1117);\
--line:var(--color-background-border,#3d444d);--good:var(--color-brand-primary,#5fd3a6);--bad:#f2777a}}
.drawn text{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.drawn .faint{fill:var(--faint)}.drawn .bad{fill:var(--bad)}.drawn .head{font-weight:600}
.drawn .code{font:11px ui-monospace,SFMono-Regular,Menlo,monospace}
.drawn .life{stroke:var(--line);stroke-width:1.5}.drawn .serves{stroke:var(--good);stroke-width:4}
.drawn .arrow{stroke:var(--ink);stroke-width:1.2;fill:none}.drawn .told{stroke-dasharray:4 3}
.drawn .tip{fill:var(--ink)}.drawn .end{stroke:var(--faint);stroke-width:1.6}
.drawn .box{fill:var(--paper);stroke:var(--ink);stroke-width:1.2}"""

TIP = 5


class Picture:
    """A drawing under way; lengths in pixels."""

    def __init__(self, title: str, description: str) -> None:
        self._title, self._description = title, description
        self._parts: list[str] = []

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        """A line of text; `kind` is its class."""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(text, quote=False)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._parts.append(f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" class="{kind}"/>')

    def arrow(self, x1: float, y: float, x2: float, kind: str = "") -> None:
        """From left to right or the other way; `told` is drawn with dashes."""
        back = TIP if x2 < x1 else -TIP
        self.line(x1, y, x2 + back / 2, y, f"arrow {kind}".strip())
        self._parts.append(
            f'<path d="M{x2:g} {y:g}l{back:g} {-TIP / 1.6:g}v{2 * TIP / 1.6:g}z" class="tip"/>'
        )

    def arc(self, x1: float, x2: float, y: float, height: float) -> None:
        """An arrow over what lies between; `height` above `y`, below it if negative."""
        self._parts.append(
            f'<path d="M{x1:g} {y:g}C{x1:g} {y - height:g} {x2:g} {y - height:g} {x2:g} {y:g}" class="arrow"/>'
        )
        down = TIP if height > 0 else -TIP
        self._parts.append(
            f'<path d="M{x2:g} {y:g}l{-TIP / 1.6:g} {-down:g}h{2 * TIP / 1.6:g}z" class="tip"/>'
        )

    def box(self, x: float, y: float, width: float, height: float) -> None:
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" class="box"/>'
        )

    def cross(self, x: float, y: float) -> None:
        """Something ends here."""
        self.line(x - 4, y - 4, x + 4, y + 4, "end")
        self.line(x - 4, y + 4, x + 4, y - 4, "end")

    def render(self, width: float, height: float) -> str:
        """The file."""
        paper = f'<rect width="{width:g}" height="{height:g}" fill="var(--paper)"/>'
        size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
        size += f' style="min-width:min(40rem,{width:g}px)"'  # below that, a phone scrolls it
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" class="drawn" role="img" {size}>',
                f"<title>{escape(self._title, quote=False)}</title>",
                f"<desc>{escape(self._description, quote=False)}</desc>",
                f"<style>{_STYLE}</style>",
                paper,
                *self._parts,
                "</svg>\n",
            ]
        )
