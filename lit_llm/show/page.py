"""The data as one page of HTML that needs nothing else: no script, no other file."""

import os
from html import escape
from pathlib import Path

from lit_llm.data.prompts import Span
from lit_llm.show.counts import Counts
from lit_llm.show.spelling import Token, visible
from lit_llm.show.view import Row, Step, View

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1d2126; --faint: #5d6670; --line: #d3d8de; --read: #f1f3f5;
  --read2: #e6e9ed; --loss: #c9efd3; --loss2: #afe3be; --loss-line: #1a7f37; --special: #8228a8; --bar: #4c8dd6; }
@media (prefers-color-scheme: dark) { :root { --back: #15181c; --text: #e3e7eb; --faint: #9aa4af; --line: #3a4149;
  --read: #21262c; --read2: #2a3037; --loss: #174d29; --loss2: #1e6135; --loss-line: #4ac26b; --special: #d59bf0;
  --bar: #5b9be0; } }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem;
  margin: 1.5rem 0 .4rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .15rem .9rem .15rem 0; vertical-align: top; }
th { font-weight: 600; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
pre, .tokens, .token { font-family: ui-monospace, monospace; font-size: .86rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.box { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; padding: .5rem .7rem; }
.said { color: var(--faint); font-size: .85rem; margin-bottom: .3rem; }
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.75; }
.t { background: var(--read); border-radius: 2px; } .t:nth-child(even) { background: var(--read2); }
.t.loss { background: var(--loss); box-shadow: inset 0 -2px var(--loss-line); }
.t.loss:nth-child(even) { background: var(--loss2); }
.special { color: var(--special); font-weight: 600; }
.padding { color: var(--faint); } .own { color: var(--faint); } .words { font-weight: 600; }
.loss-text { box-shadow: inset 0 -2px var(--loss-line); background: var(--loss); }
svg text { fill: var(--text); font: 12px system-ui, sans-serif; } svg rect { fill: var(--bar); }
""".strip()
LEGEND = (
    '<p><span class="tokens"><span class="t loss">green, underlined</span></span>: carries loss, the model is asked '
    'for it after what stands before. <span class="tokens"><span class="t">grey</span></span>: is read alone. '
    '<span class="tokens"><span class="special">violet</span></span>: control token. Shades change at the borders of '
    "tokens.</p>"
)
LINE, LEFT, BAR = 20, 120, 480  # pixels of a line of the histogram, of its names, of the longest bar


def write_page(view: View, path: Path) -> None:
    """Write the page, whole or not at all.

    Args:
        view: What is shown.
        path: The file; one that is there is replaced.

    Raises:
        ValueError: If it cannot be written.
    """
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        part.write_text(page(view), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise ValueError(f"cannot write --html '{path}': {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def page(view: View) -> str:
    """The page."""
    parts = [f"<h1>{escape(view.title)}</h1>", _facts(view.facts)]
    if view.report:
        parts.append(f'<h2>What the data module says</h2><pre class="box">{escape(view.report)}</pre>')
    if view.counts.lengths:
        parts.append(f"<h2>Lengths of the texts in these rows, in tokens</h2>{_histogram(view.counts)}")
    if view.rows:
        parts.append(f"<h2>Rows of the first batches</h2>{_legend(view)}")
        parts += map(_row, view.rows)
    elif not view.counts.rows:
        parts.append(f"<p>The batches hold no ids with targets that could be shown ({escape(view.kind)}).</p>")
    if view.spans:
        spans = "".join(map(_span, view.spans))
        said = "bold: what somebody says; green, underlined: carries loss; grey: the template's own"
        parts.append(f'<h2>The first conversation as the template renders it, whole</h2><p>{said}</p><pre class="box">')
        parts[-1] += f"{spans}</pre>"
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Nothing in a text can load or run anything, whatever a browser makes of it.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(view.title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _facts(facts: dict[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f"<table>{rows}</table>"


def _legend(view: View) -> str:
    if view.counts.has_targets:
        return LEGEND
    return "<p>No token carries loss: a model is asked for the class of the whole text.</p>"


def _row(row: Row) -> str:
    parts = [f"<h3>{escape(row.title)}</h3>"]
    for stretch in row.stretches:
        tokens = "".join(map(_token, stretch.tokens))
        parts.append(f'<div class="box"><div class="said">{escape(stretch.title)}</div>')
        parts[-1] += f'<div class="tokens">{tokens}</div></div>'
    if row.padding:
        parts.append(f'<div class="padding">{row.padding} places of padding</div>')
    if row.steps:
        head = '<tr><th class="n">place</th><th class="n">position</th><th>reads</th><th>is asked for</th></tr>'
        steps = "".join(map(_step, row.steps))
        parts.append(f"<details open><summary>the shift by one</summary><table>{head}{steps}</table></details>")
    return "\n".join(parts)


def _token(token: Token) -> str:
    kinds = "t" + (" loss" if token.carries_loss else "") + (" special" if token.is_special else "")
    return f'<span class="{kinds}" title="id {token.id}">{escape(token.text)}</span>'


def _step(step: Step | None) -> str:
    if step is None:
        return '<tr><td class="n">…</td><td class="n">…</td><td>…</td><td>…</td></tr>'
    asked = "–" if step.asked is None else _cell(step.asked)
    numbers = f'<td class="n">{step.place}</td><td class="n">{step.position}</td>'
    return f"<tr>{numbers}<td>{_cell(step.read)}</td><td>{asked}</td></tr>"


def _cell(token: Token) -> str:
    loss = " loss" if token.carries_loss else ""
    return f'<span class="token"><span class="t{loss}">{escape(token.cell)}</span> {token.id}</span>'


def _span(span: Span) -> str:
    kinds = ("words" if span.is_content else "own") + (" loss-text" if span.carries_loss else "")
    return f'<span class="{kinds}">{escape(visible(span.text))}</span>'


def _histogram(counts: Counts) -> str:
    """Bars from left to right, a line each."""
    bins = counts.histogram()
    most = max(each.texts for each in bins)
    parts = []
    for number, each in enumerate(bins):
        width, middle = each.texts * BAR / most, number * LINE + 15
        parts.append(f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{each.name}</text>')
        parts.append(f'<rect x="{LEFT}" y="{number * LINE + 3}" width="{width:.1f}" height="{LINE - 6}"/>')
        parts.append(f'<text x="{LEFT + width + 6:.1f}" y="{middle}">{each.texts:,}</text>')
    size = f'width="{LEFT + BAR + 80}" height="{len(bins) * LINE}"'
    return f'<svg {size} role="img" aria-label="histogram of lengths">{"".join(parts)}</svg>'
