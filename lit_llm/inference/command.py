"""lit-llm generate."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_llm.inference.options import SOURCE, TEMPLATE, add_sampling, add_storage, check, open_model, sampling_of
from lit_llm.terminal import shown, typed
from lit_llm.usage import Parser, at

if TYPE_CHECKING:
    from lit_llm.data.prompts import Message
    from lit_llm.inference.text import Asked, Completion, TextModel


def run(args: list[str]) -> int:
    """Continue prompts with a model; what is written goes to stdout, and nothing else does."""
    config = parser().parse_args(args[1:])
    check(config, "max_new_tokens", "num_samples", "batch_size")
    config.prompt, config.system = typed(config.prompt), typed(config.system)
    prompts: dict[str, str | list[Message]] = {"": config.prompt}
    if config.prompts is not None:
        if config.prompt:
            raise ValueError(f"--prompt {config.prompt!r} and --prompts {config.prompts} were both given; choose one")
        prompts = read_prompts(config.prompts)
    count = len(prompts) * config.num_samples
    sampling = sampling_of(config)

    from lit_llm.inference.text import Asked

    asked = Asked(config.max_new_tokens, sampling, tuple(config.stop or ()), config.logprobs)
    at_once = config.draft_tokens + 1 if config.draft is not None else min(config.batch_size, count)
    model = open_model(config.checkpoint, config, {1, at_once})
    if config.draft is not None:
        model.speculate(open_model(config.draft, config), config.draft_tokens)
    single, asked = encode(model, prompts, asked, config)
    inputs = [prompt for prompt in single for _ in range(config.num_samples)]
    if config.prompts is not None or config.logprobs:
        said = [prompt for prompt in prompts.values() for _ in range(config.num_samples)]
        write_lines(model, said, inputs, asked, config)
    else:
        write_texts(model, inputs, asked, config.seed)
    if model.speculation is not None:
        print(f"draft: {model.speculation.acceptance_rate:.1%} of its tokens were kept", file=sys.stderr)
    return 0


def parser() -> Parser:
    """The options."""
    parser = Parser(
        prog="lit-llm generate", description="Continue a prompt with a checkpoint. Only text goes to stdout."
    )
    add = parser.add_argument
    add("--checkpoint", type=str, required=True, help=SOURCE)
    add("--prompt", type=str, default="", help="the beginning of the text")
    lines = 'a file of prompts, one a line: {"prompt": "..."}, {"messages": [...]}, or plain'
    add("--prompts", type=str | None, default=None, help=lines)
    add("--chat", type=bool, default=False, help="a prompt is a message of a user, and the answer alone is written")
    add("--template", type=str | None, default=None, help=f"the chat template of --chat: {TEMPLATE}")
    add("--system", type=str, default="", help="what the assistant of --chat is told first")
    add("--max_new_tokens", type=int | None, default=None, help="tokens to add at most; 100, or while positions last")
    add_sampling(parser)
    add("--num_samples", type=int, default=1, help="texts of each prompt, a line of dashes between them")
    add("--logprobs", type=bool, default=False, help="tell the log-probability of each token; writes JSON lines")
    add("--batch_size", type=int, default=8, help="prompts of a file that are continued at once")
    add("--draft", type=str | None, default=None, help="a smaller checkpoint that guesses ahead; same distribution")
    add("--draft_tokens", type=int, default=4, help="tokens that the draft guesses before they are judged")
    add_storage(parser)
    return parser


def encode(
    model: "TextModel", prompts: "Mapping[str, str | list[Message]]", asked: "Asked", config: Any
) -> "tuple[list[str | list[int]], Asked]":
    """The prompts as the model reads them: texts, or the ids of conversations; and where their answers end.

    Args:
        model: The model.
        prompts: By the places that are named where one is refused.
        asked: How to continue.
        config: The options.

    Raises:
        ValueError: If a conversation cannot be written by the template, or one cannot be continued.
    """
    is_chat = config.chat or config.template is not None or bool(config.system)
    if is_chat and "" in prompts.values():
        raise ValueError("the prompt is empty, and --chat answers one; give a --prompt or --prompts")
    inputs: list[str | list[int]] = [prompt for prompt in prompts.values() if isinstance(prompt, str)]
    if is_chat or len(inputs) < len(prompts):
        from lit_llm.inference.chat import Assistant

        assistant = Assistant.of(model, config.template or "source")
        told = [{"role": "system", "content": config.system}] if config.system else []
        inputs, asked = [], assistant.asked(asked)
        for place, prompt in prompts.items():
            talk = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            with at(place):
                inputs.append(assistant.encode(talk if talk[0]["role"] == "system" else [*told, *talk]))
    for place, ids in zip(prompts, inputs, strict=True):
        with at(place):
            model.check(ids, asked)
    return inputs, asked


def read_prompts(path: str) -> "dict[str, str | list[Message]]":
    """The prompts of a file, one a line, each by its place.

    Raises:
        ValueError: If there is no such file, it has no line, or a line is an object with neither a text as its prompt
            nor messages.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file of prompts '{path}'")
    try:
        text = Path(path).read_text(encoding="utf-8")  # in which every line ends alike
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} of '{path}' is no text in UTF-8 ({error.reason} at byte {error.start})"
        ) from error
    lines = {number: line for number, line in enumerate(text.split("\n"), start=1) if line.strip()}
    if not lines:
        raise ValueError(f"the file of prompts '{path}' is empty")
    places = {f"line {number} of '{path}'": line for number, line in lines.items()}
    return {place: _prompt(line, place) for place, line in places.items()}


def _prompt(line: str, place: str) -> "str | list[Message]":
    if not line.lstrip().startswith(("{", '"')):
        return line
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is no JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError(f"{place} is no JSON: it is nested without end") from error
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        from lit_llm.data.messages import spoken

        messages = spoken(place, value["messages"])
        if not messages or messages[-1]["role"] == "assistant":
            raise ValueError(f"{place} has messages that ask for no answer; the last one is a user's")
        return messages
    prompt = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(prompt, str):
        raise ValueError(f'{place} has no text as its "prompt"; write {{"prompt": "..."}}, or {{"messages": [...]}}')
    return prompt


def write_texts(model: "TextModel", prompts: list[str | list[int]], asked: "Asked", seed: int | None) -> None:
    """Each prompt and what follows, as it comes; of a conversation, what follows alone."""
    for number, prompt in enumerate(prompts):
        pieces = model.stream(prompt, asked, None if seed is None else seed + number)
        first = next(pieces)  # what cannot be continued is refused before anything is written
        if number:
            print("-" * 20)
        print(shown(prompt if isinstance(prompt, str) else ""), shown(first), sep="", end="", flush=True)
        for piece in pieces:
            print(shown(piece), end="", flush=True)
        print(flush=True)


def write_lines(
    model: "TextModel",
    prompts: "Sequence[str | list[Message]]",
    inputs: list[str | list[int]],
    asked: "Asked",
    config: Any,
) -> None:
    """A JSON object for each prompt, in their order; progress goes to stderr."""
    from tqdm import tqdm

    done: Iterator[Completion] = model.complete_all(inputs, asked, config.seed, config.batch_size)
    for prompt, completion in zip(prompts, tqdm(done, total=len(prompts), unit="prompt", disable=None), strict=True):
        name = "prompt" if isinstance(prompt, str) else "messages"
        line: dict[str, Any] = {name: prompt, "text": completion.text, "tokens": len(completion.ids)}
        line["finish_reason"] = completion.finish_reason
        if completion.logprobs is not None:
            line |= {"ids": completion.ids, "logprobs": [round(value, 6) for value in completion.logprobs]}
        print(shown(json.dumps(line, ensure_ascii=False)), flush=True)
