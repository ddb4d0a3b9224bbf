"""Jinja as chat templates need it: transformers' extensions, no way out, and a bound on what a rendering may cost.

A template is a program that comes along with a model. Jinja's sandbox keeps it from Python's inside, but not from
running for ever or filling the memory; here every loop, call and long value is counted, and beyond a bound refused.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from itertools import islice
from operator import mod
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from lit_llm.data.costs import (
    MAX_BITS,
    MAX_NUMBER,
    MAX_SIZE,
    CostError,
    check_growth,
    check_widths,
    margin,
    sized,
    weight,
)
from lit_llm.data.sandbox_syntax import Bounded, Generation
from lit_llm.data.traced import OWN_METHODS, Traced, concat, is_given, lifted
from lit_llm.data.tracing import follow, followed, method, to_json, written

MAX_SOURCE = 200_000  # characters; the longest published templates have 30,000
MAX_STEPS = 1_000_000  # turns of loops and calls of one rendering
CALL = 10  # what a call costs beside a turn of a loop
CHARACTERS = 100  # read or made in a step, so that a rendering makes no more than 100 million
NO_FILTERS = ("striptags", "urlize", "wordwrap")  # their time, or what they write, grows faster than the text
NO_METHODS = ("encode", "expandtabs", "translate")  # of texts, likewise
# Filters that follow a traced text, or hand on one of their values as it is.
OF_TEXTS = ("capitalize", "lower", "replace", "reverse", "string", "trim", "upper")
OF_VALUES = ("attr", "d", "default", "first", "join", "last", "max", "min", "random", "tojson")
# Filters and tests that hand on a text, or go by its kind; and those that do so with a list.
WORDLESS = ("d", "default", "string", "defined", "undefined", "none", "mapping", "iterable", "sequence", "boolean")
OF_LISTS = ("first", "last", "length", "count", "list")
STRIPS = ("strip", "lstrip", "rstrip", "trim")
MAX_INDENT = 16  # characters before a line, or between elements, of JSON


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The environment of chat templates: what transformers gives them, with bounds."""

    intercepted_binops = frozenset(("+", "*", "**", "%", "//"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], finalize=self._printed
        )
        self.traces = False  # whether what {% generation %} marks is to be seen
        self.steps = self.size = 0
        self.optimized = False  # nothing is computed before it is counted
        now = datetime.now()  # one moment for all: a run has one prompt
        del self.globals["lipsum"]  # draws words
        self.globals.update(
            range=_range, namespace=_Names, raise_exception=_refuse, strftime_now=followed(now.strftime)
        )
        self.filters.update(tojson=_to_json, join=_join)
        for name in NO_FILTERS:
            del self.filters[name]
        self.filters = {name: self._checked(name, function) for name, function in self.filters.items()}
        self.filters.update(_counted=self._counted, _joined=self._joined, _made=self._made)
        self.filters.update(_compared=self._compared, _searched=self._searched)
        self.tests = {name: self._checked(name, cast(Any, function)) for name, function in self.tests.items()}

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(Bounded().visit(source), *args, **kwargs)

    def start(self, traces: bool) -> None:
        """Count from 0, for one rendering."""
        self.traces, self.steps, self.size = traces, 0, 0

    def concat(self, texts: Iterable[str]) -> str:
        """Texts in a row, as Jinja puts them together."""
        return cast(str, concat(texts)) if self.traces else "".join(texts)

    def charge(self, steps: int) -> None:
        """Count steps.

        Raises:
            CostError: If there are too many.
        """
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise CostError(f"it takes more than {MAX_STEPS:,} steps")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute what is not too large; the operators are those that make large values from small ones."""
        number = next((value for value in (right, left) if isinstance(value, int)), 0)
        if operator == "%" and isinstance(left, str):
            check_widths(left, right)
        elif isinstance(left, int) and isinstance(right, int):
            bits = {"**": left.bit_length() * max(right, 0), "*": left.bit_length() + right.bit_length()}
            if bits.get(operator, 0) > MAX_BITS:
                raise CostError(f"a number of more than {MAX_BITS} bits")
        elif operator == "*" and (weight(left) if right is number else weight(right)) * number > MAX_SIZE:
            raise CostError(f"a value of more than {MAX_SIZE:,} characters")
        if operator == "%" and isinstance(left, str) and is_given([left, right]):
            Traced.looks += 1
            return self._made(follow(mod, (left, right), {}))
        return self._made(super().call_binop(context, operator, left, right))

    def call(*args: Any, **kwargs: Any) -> Any:  # the arguments of a template may be called as those here
        """Call what a template calls, if it may."""
        self, context, function, *given = args
        text = getattr(function, "__self__", None)
        values = [text, *given] if isinstance(text, str) else given
        self.charge(CALL + self._weighed([*values, *kwargs.values()]))
        if getattr(function, "__name__", "") in ("replace", "join") and isinstance(text, str):
            if function.__name__ == "join" and given:
                given[0] = values[1] = list(self._counted(given[0]))
            check_growth(function.__name__, values)
        if self.traces and not (getattr(function, "__name__", "") in STRIPS and len(values) == 1):
            own = [value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")]  # not Jinja's
            self._looked([text if isinstance(text, list | tuple) else None, *values, *own])
        if self.traces and isinstance(text, str) and is_given([*values, *kwargs.values()]):
            if function.__name__ not in OWN_METHODS:
                function, given = followed(method(function.__name__)), values
            elif not isinstance(text, Traced):
                function = getattr(lifted(text), function.__name__)
        return self._made(ImmutableSandboxedEnvironment.call(self, context, function, *given, **kwargs))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use an attribute."""
        return not (isinstance(obj, str) and attr in NO_METHODS) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, without widths that fill the memory."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @wraps(wrapped)
        def checked(*args: Any, **kwargs: Any) -> str:
            check_widths(value.__self__, [*args, *kwargs.values()])
            if not is_given([value.__self__, args, kwargs]):
                return wrapped(*args, **kwargs)
            form = super(ChatEnvironment, self).wrap_str_format
            again = lambda text, *args, **kwargs: cast(Any, form(getattr(text, value.__name__)))(*args, **kwargs)  # noqa: E731
            return follow(again, (value.__self__, *args), kwargs)

        return checked

    def _checked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0  # what Jinja gives before the value

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            if name == "join" and not isinstance(args[skipped], jinja2.Undefined):
                args = (*args[:skipped], list(self._counted(args[skipped])), *args[skipped + 1 :])
            values = [*args[skipped:], *kwargs.values()]
            self.charge(CALL + self._weighed(values))
            if name == "format":
                check_widths(values[0], values[1:])
            elif name in ("replace", "join"):
                check_growth(name, values if name == "replace" else [*values[1:2], values[0]])
            elif name == "indent":
                check_growth("replace", [values[0], "\n", " " * 4 if len(values) < 2 else margin(values[1:])])
            if not self.traces:
                return self._made(function(*args, **kwargs))
            is_list = name in OF_LISTS and not isinstance(values[0], str)
            if not (is_list or name in WORDLESS or (name in STRIPS and len(values) == 1)):
                self._looked(values)
            if name in OF_TEXTS and isinstance(values[0], str) and is_given(values):
                args = (*args[:skipped], lifted(values[0]), *args[skipped + 1 :])
            elif name not in OF_VALUES:
                return self._made(followed(function)(*args, **kwargs))
            return self._made(function(*args, **kwargs))

        return checked

    def _weighed(self, values: list[Any]) -> int:
        """What the arguments of a call cost: elements of lists, as it may walk through them."""
        for value in values:
            if isinstance(value, int) and abs(value) > MAX_NUMBER:  # of at most MAX_BITS, so that it can be written
                raise CostError(f"a number of {len(str(value))} digits, where {MAX_NUMBER:,} is the largest")
            sized(value)
        return sum(
            len(value) // (CHARACTERS if isinstance(value, str) else 1)
            for value in values
            if isinstance(value, str | list | tuple | dict | range)
        )

    def _made(self, value: Any) -> Any:
        """A value that has just been made, or is to be read, once it is counted."""
        self.charge(weight(sized(value)) // CHARACTERS)
        return value

    def _looked(self, value: Any) -> None:
        """Count that a template may go by what is said, where it does something with it."""
        if self.traces and is_given(value):
            Traced.looks += 1

    def _compared(self, value: Any) -> Any:
        self._looked(value)
        return self._made(value)

    def _searched(self, value: Any) -> Any:
        return self._made(value) if isinstance(value, dict) else self._compared(value)

    def _counted(self, values: Any) -> Any:
        if isinstance(values, jinja2.Undefined):
            return values
        if not hasattr(values, "__len__"):
            values = [self._made(value) for value in islice(values, MAX_STEPS + 1)]
        self.charge(1 + len(values))
        return values

    def _joined(self, values: list[Any]) -> str:
        return self._made(concat(map(written, sized(values))))

    @jinja2.pass_context  # so that it is not asked of constants alone, and before the rendering
    def _printed(self, _: Any, value: Any) -> Any:
        self.size += weight(value)
        if self.size > MAX_SIZE:
            raise CostError(f"it writes more than {MAX_SIZE:,} characters")
        return written(value) if isinstance(value, list | tuple | dict) else value


@jinja2.pass_eval_context
def _join(context: nodes.EvalContext, value: Any, d: Any = "", attribute: str | int | None = None) -> Any:
    """Jinja's filter, traced."""
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    return concat([text for item in value for text in (written(d), written(item))][1:])


def _range(*args: int) -> range:
    values = range(*args)
    if len(values) > MAX_NUMBER:
        raise CostError(f"a range of {len(values):,} numbers, where {MAX_NUMBER:,} are the most")
    return values


class _Names(Namespace):
    """What a template may keep across loops; no names of Python's own."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"the name '{name}' begins with an underscore")
        super().__setitem__(name, value)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as it is: Jinja's own filter would escape what means something in HTML."""
    for given in (indent, *(separators or ())):
        if (given if isinstance(given, int) else len(given or "")) > MAX_INDENT:
            raise CostError(f"more than {MAX_INDENT} characters between the elements of JSON")
    return to_json(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def line_of(error: BaseException) -> int | None:
    """The line of a template where an error arose."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def compiled(source: str, environment: ChatEnvironment) -> jinja2.Template:
    """A template, ready to be rendered.

    Raises:
        CostError: If the source is too long.
        TemplateSyntaxError: If it is no Jinja.
    """
    if len(source) > MAX_SOURCE:
        raise CostError(f"its source has {len(source):,} characters, where {MAX_SOURCE:,} are the most")
    return environment.from_string(source)
