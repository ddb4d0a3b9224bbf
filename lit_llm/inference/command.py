"""lit-llm generate."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_llm.usage import MAX_SEED, Parser

if TYPE_CHECKING:
    from lit_llm.inference.text import Asked, Completion, TextModel


def run(args: list[str]) -> int:
    """Continue prompts with a model; what is written goes to stdout, and nothing else does."""
    config = parser().parse_args(args[1:])
    for name in ("max_new_tokens", "num_samples", "batch_size"):
        if config[name] is not None and config[name] < 1:
            raise ValueError(f"--{name} {config[name]} cannot be: it is at least 1")
    if config.seed is not None and not 0 <= config.seed <= MAX_SEED:
        raise ValueError(f"--seed {config.seed} cannot be: it lies in [0, {MAX_SEED}]")
    prompts = [config.prompt] * config.num_samples
    if config.prompts is not None:
        if config.prompt:
            raise ValueError(f"--prompt {config.prompt!r} and --prompts {config.prompts} were both given; choose one")
        prompts = [prompt for prompt in read_prompts(config.prompts) for _ in range(config.num_samples)]

    from lit_llm.inference.sampling import Sampling
    from lit_llm.inference.text import Asked

    settings = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    sampling = Sampling(**{name: config[name] for name in settings})
    asked = Asked(config.max_new_tokens, sampling, tuple(config.stop or ()), config.logprobs)
    model = open_model(config)
    if config.prompts is not None or config.logprobs:
        write_lines(model, prompts, asked, config)
    else:
        write_texts(model, prompts, asked, config.seed)
    if model.speculation is not None:
        print(f"draft: {model.speculation.acceptance_rate:.1%} of its tokens were kept", file=sys.stderr)
    return 0


def parser() -> Parser:
    """The options."""
    parser = Parser(
        prog="lit-llm generate", description="Continue a prompt with a checkpoint. Only text goes to stdout."
    )
    add = parser.add_argument
    source = "a .ckpt file, a run folder or a folder of runs; or a model of the Hugging Face hub, or a folder of one"
    add("--checkpoint", type=str, required=True, help=source)
    add("--prompt", type=str, default="", help="the beginning of the text")
    add("--prompts", type=str | None, default=None, help='a file of prompts, one a line: {"prompt": "..."}, or plain')
    add("--max_new_tokens", type=int | None, default=None, help="tokens to add at most; 100, or while positions last")
    add("--temperature", type=float, default=0.8, help="0 is greedy, 1 samples as trained")
    add("--top_k", type=int | None, default=None, help="draw among the k best tokens")
    add("--top_p", type=float | None, default=None, help="draw among the best tokens that reach p")
    add("--min_p", type=float | None, default=None, help="draw among tokens with this share of the best one's odds")
    add("--repetition_penalty", type=float, default=1.0, help="above 1: makes tokens that came before less likely")
    add("--stop", type=list[str] | None, default=None, help="strings at which a text ends, as '[one, two]'")
    add("--seed", type=int | None, default=None, help="repeats a text; the next texts have the next seeds")
    add("--num_samples", type=int, default=1, help="texts of each prompt, a line of dashes between them")
    add("--logprobs", type=bool, default=False, help="tell the log-probability of each token; writes JSON lines")
    add("--batch_size", type=int, default=8, help="prompts of a file that are continued at once")
    add("--draft", type=str | None, default=None, help="a smaller checkpoint that guesses ahead; same distribution")
    add("--draft_tokens", type=int, default=4, help="tokens that the draft guesses before they are judged")
    add("--dtype", type=str, default="fp32", help="how weights are stored: fp32, bf16 or int8")
    add("--compile", type=bool, default=False, help="compile the product of decoding on a CPU; takes some seconds")
    return parser


def open_model(config: Any) -> "TextModel":
    """The model, its draft and how they store their weights."""
    from lit_llm.inference.products import prepare
    from lit_llm.inference.text import TextModel

    model = TextModel.from_source(config.checkpoint)
    prepare(model.backbone, config.dtype, config.compile)
    if config.draft is not None:
        draft = TextModel.from_source(config.draft)
        prepare(draft.backbone, config.dtype, config.compile)
        model.speculate(draft, config.draft_tokens)
    return model


def read_prompts(path: str) -> list[str]:
    """The prompts of a file, one a line.

    Raises:
        ValueError: If there is no such file, it has no line, or a line is an object without a text as its prompt.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file of prompts '{path}'")
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    if not lines:
        raise ValueError(f"the file of prompts '{path}' is empty")
    return [_prompt(line, f"line {number} of '{path}'") for number, line in enumerate(lines, start=1)]


def _prompt(line: str, place: str) -> str:
    if not line.lstrip().startswith(("{", '"')):
        return line
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is no JSON: {error.msg} at column {error.colno}") from error
    prompt = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise ValueError(f'{place} has no text as its "prompt"; write {{"prompt": "..."}}')
    return prompt


def write_texts(model: "TextModel", prompts: list[str], asked: "Asked", seed: int | None) -> None:
    """Each prompt and what follows, as it comes."""
    for number, prompt in enumerate(prompts):
        pieces = model.stream(prompt, asked, None if seed is None else seed + number)
        first = next(pieces)  # what cannot be continued is refused before anything is written
        if number:
            print("-" * 20)
        print(prompt, first, sep="", end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print(flush=True)


def write_lines(model: "TextModel", prompts: list[str], asked: "Asked", config: Any) -> None:
    """A JSON object for each prompt, in their order; progress goes to stderr."""
    from tqdm import tqdm

    done: Iterator[Completion] = model.complete_all(prompts, asked, config.seed, config.batch_size)
    for prompt, completion in zip(prompts, tqdm(done, total=len(prompts), unit="prompt", disable=None), strict=True):
        line = {"prompt": prompt, "text": completion.text, "tokens": len(completion.ids)}
        line["finish_reason"] = completion.finish_reason
        if completion.logprobs is not None:
            line |= {"ids": completion.ids, "logprobs": [round(value, 6) for value in completion.logprobs]}
        print(json.dumps(line, ensure_ascii=False), flush=True)
