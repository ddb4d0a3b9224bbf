# ruff: noqa: D102 (Jinja's visitor)
"""What chat templates write beyond Jinja, and counts that are put into their code."""

from collections.abc import Callable
from typing import cast

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

from lit_llm.data.traced import generated


class Generation(Extension):
    """`{% generation %}`, by which a template says what the assistant wrote (of transformers)."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        """Hand the body to `_mark`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return generated(caller()) if getattr(self.environment, "traces", False) else caller()


class Bounded(NodeTransformer):
    """Puts a count into each loop, `~`, slice, comparison and text, which Jinja's sandbox does not see."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 (Jinja's name)
        self.generic_visit(node)
        node.iter = _filter(node.iter, "_counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "_joined")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, "_made") if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filter(node.expr, "_compared")
        for operand in node.ops:
            operand.expr = _filter(operand.expr, "_searched" if operand.op in ("in", "notin") else "_compared")
        return node

    def visit_List(self, node: nodes.Expr) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else _filter(node, "_made")

    visit_Tuple = visit_Dict = visit_List  # noqa: N815

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Const:  # noqa: N802
        return nodes.Const(node.data, lineno=node.lineno)  # which is counted each time that it is written


def _filter(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)
