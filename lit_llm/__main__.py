"""`lit-llm` and `python -m lit_llm`: finds the command, and imports only what it needs."""

import sys
from importlib import import_module, metadata
from importlib.resources import files
from pathlib import Path

COMMANDS = {
    "fit": ("lit_llm.cli", "train, or go on training"),
    "validate": ("lit_llm.cli", "score a checkpoint on the validation data"),
    "test": ("lit_llm.cli", "score a checkpoint on the test data"),
    "predict": ("lit_llm.cli", "write what a checkpoint predicts"),
    "data": ("lit_llm.show.command", "show what a model is really trained on"),
    "bench": ("lit_llm.costs.bench", "time the training of a config on this machine"),
    "plan": ("lit_llm.costs.plan", "what a training will need: memory, operations, hours"),
    "compare": ("lit_llm.evaluation.compare", "runs side by side, with intervals and paired tests"),
    "sweep": ("lit_llm.evaluation.sweep", "train every variant of a grid with several seeds"),
    "generate": ("lit_llm.inference.command", "continue a prompt with a checkpoint"),
    "chat": ("lit_llm.inference.chat_command", "talk with a model on the terminal"),
    "classify": ("lit_llm.inference.classify", "tell the class of texts with a checkpoint"),
    "export": ("lit_llm.weights.export", "write a checkpoint as a folder that other programs load"),
    "tokenizer": ("lit_llm.data.command", "train a tokenizer on your text"),
}
HELP = """usage: lit-llm COMMAND [options]

A language model from YAML: pretrain, evaluate, use.

commands:
{commands}

`lit-llm COMMAND --help` shows the options of a command; `lit-llm --version` shows the version.

What stands later wins: defaults in the code, then each --config from left to right, then the environment
(PL_FIT__TRAINER__MAX_STEPS=3 is --trainer.max_steps=3), then the options.

exit codes: 0 done, 1 the run failed, 2 wrong usage or input, 129 hung up, 130 interrupted,
143 terminated.
A wrong input is told in one line; LIT_LLM_DEBUG=1 shows where it was found."""


def main(args: list[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The command and its options. None: those of the process.

    Returns:
        The exit code.
    """
    from lit_llm.usage import fail, guarded

    args = sys.argv[1:] if args is None else args
    name = args[0] if args else "--help"
    if name in ("-h", "--help", "--version"):
        return guarded("lit-llm", lambda: _tell(name))
    if name not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"the commands are {', '.join(COMMANDS)}"
        fail("lit-llm", f"there is no command '{name}'; {hint}")
    if str(Path.cwd()) not in sys.path:
        # A console script does not see `experiments.…` otherwise. At the end: a file here hides no library.
        sys.path.append(str(Path.cwd()))
    return guarded(f"lit-llm {name}", lambda: import_module(COMMANDS[name][0]).run([name, *map(_locate, args[1:])]))


def _tell(name: str) -> int:
    if name == "--version":
        print(f"lit-llm {metadata.version('lit-llm')}")
    else:
        print(HELP.format(commands="\n".join(f"  {name:10} {text}" for name, (_, text) in COMMANDS.items())))
    return 0


def _locate(argument: str) -> str:
    """`configs/…` where it is not in the working directory: the file of that name that comes with the package."""
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    if not value.startswith("configs/") or Path(value).exists():
        return argument
    package = Path(str(files("lit_llm")))
    for root in (package, package.parent):  # a wheel holds them inside the package, a checkout beside it
        if (root / value).is_file():
            return f"{option}{equals}{root / value}"
    return argument


if __name__ == "__main__":
    sys.exit(main())
