"""The data on a terminal: in colours, or with brackets where there are none."""

import io
import sys

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lit_llm.data.prompts import Span
from lit_llm.show.counts import Counts
from lit_llm.show.spelling import PLAIN_SIGNS, Token, visible
from lit_llm.show.view import Row, Step, View
from lit_llm.tables import table
from lit_llm.terminal import visible as harmless

WIDTH = 100  # columns where there is no terminal
BAR = 40  # columns of the longest bar
LOSS = ("bold green", "green")  # in turn, so that the borders of tokens show
READ = ("", "dim")
SPECIAL = "magenta"


def show(view: View, width: int | None) -> None:
    """Print what is shown.

    Args:
        view: It.
        width: Columns. None: those of the terminal.
    """
    out = io.StringIO()
    screen = Console()
    is_plain = screen.color_system is None or screen.no_color
    console = Console(
        file=out,
        width=width or (screen.width if screen.is_terminal else WIDTH),
        highlight=False,
        color_system=None if is_plain else "standard",
        force_terminal=not is_plain,
        no_color=is_plain,
    )
    _print(view, console, is_plain)
    text = out.getvalue()
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.translate(PLAIN_SIGNS)
    print(text, end="")


def _print(view: View, console: Console, is_plain: bool) -> None:
    console.rule(Text(view.title), characters="-" if is_plain else "─")
    console.print(Text(harmless(table(view.facts))), soft_wrap=True)
    if view.report:
        console.print(Text(harmless(f"\n{view.report}")), soft_wrap=True)
    if view.counts.lengths:
        console.print(Text("\nlengths of the texts in these rows, in tokens"))
        console.print(Text(bars(view.counts)), soft_wrap=True)
    if not view.counts.rows:
        console.print(Text(f"the batches hold no ids with targets that could be shown ({view.kind})"), soft_wrap=True)
        return
    console.print(_legend(view, is_plain))
    for row in view.rows:
        _print_row(row, console, is_plain)
    if view.spans:
        console.print(Text("\nthe first conversation above, as the template renders it, whole; "), end="")
        console.print(Text("in bold what somebody says" if not is_plain else "in {{ }} what somebody says"))
        drawn = Text()
        for span in view.spans:
            drawn.append_text(_span(span, is_plain))
        console.print(Panel(drawn, box=box.ASCII if is_plain else box.ROUNDED, title="template", title_align="left"))


def _legend(view: View, is_plain: bool) -> Text:
    if not view.counts.has_targets:
        return Text("\nno token carries loss: a model is asked for the class of the whole text")
    signs = ("⟦ ⟧", "« »") if is_plain else ("green", "magenta")
    return Text(
        f"\n{signs[0]}: carries loss, the model is asked for it after what stands before; {signs[1]}: control token"
    )


def _print_row(row: Row, console: Console, is_plain: bool) -> None:
    console.print(Text(harmless(f"\n{row.title}"), style="bold"))
    for stretch in row.stretches:
        text = marked(stretch.tokens) if is_plain else _coloured(stretch.tokens)
        title = Text(harmless(stretch.title), overflow="fold")
        if console.measure(title).maximum + 6 > console.width:  # a border cuts what is longer
            console.print(title)
            title = Text("")
        console.print(Panel(text, box=box.ASCII if is_plain else box.ROUNDED, title=title, title_align="left"))
    if row.padding:
        console.print(Text(f"{row.padding} places of padding", style="dim"))
    if row.steps:
        console.print(_shift(row.steps, is_plain))


def marked(tokens: list[Token]) -> Text:
    """Tokens with brackets around those that carry loss."""
    text, is_open = "", False
    for token in tokens:
        if token.carries_loss != is_open:
            text += "⟦" if token.carries_loss else "⟧"
            is_open = token.carries_loss
        text += f"«{token.text}»" if token.is_special else token.text
    return Text(f"{text}⟧" if is_open else text)


def _coloured(tokens: list[Token]) -> Text:
    text = Text()
    for number, token in enumerate(tokens):
        style = (LOSS if token.carries_loss else READ)[number % 2]
        if token.is_special:
            style = f"{SPECIAL} {'bold underline' if token.carries_loss else ''}"
        text.append(token.text, style)
    return text


def _shift(steps: list[Step | None], is_plain: bool) -> Table:
    drawn = Table(box=box.ASCII2 if is_plain else box.SIMPLE, title="the shift by one", title_justify="left")
    for name, justify in {"place": "right", "position": "right", "reads": "left", "is asked for": "left"}.items():
        drawn.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for step in steps:
        if step is None:
            drawn.add_row("…", "…", "…", "…")
            continue
        asked = Text("–") if step.asked is None else Text(f"{step.asked.cell} ({step.asked.id})", style=LOSS[0])
        drawn.add_row(str(step.place), str(step.position), Text(f"{step.read.cell} ({step.read.id})"), asked)
    return drawn


def _span(span: Span, is_plain: bool) -> Text:
    text = visible(span.text)
    if not is_plain:
        return Text(text, style=f"{'bold' if span.is_content else 'dim'}{' green' if span.carries_loss else ''}")
    text = f"{{{{{text}}}}}" if span.is_content else text
    return Text(f"⟦{text}⟧" if span.carries_loss else text)


def bars(counts: Counts) -> str:
    """A histogram of lengths, a line for each step."""
    bins = counts.histogram()
    most = max(each.texts for each in bins)
    widths = max(len(each.name) for each in bins), len(f"{most:,}")
    return "\n".join(
        f"  {each.name:>{widths[0]}}  {each.texts:{widths[1]},}  {'█' * -(-each.texts * BAR // most)}".rstrip()
        for each in bins
    )
