"""lit-llm generate."""

from lit_llm.usage import MAX_SEED, Parser


def run(args: list[str]) -> int:
    """Continue a prompt with a checkpoint; the text goes to stdout, and nothing else does."""
    parser = Parser(
        prog="lit-llm generate", description="Continue a prompt with a checkpoint. Only text goes to stdout."
    )
    parser.add_argument("--checkpoint", type=str, required=True, help="a .ckpt file, a run folder, or a folder of runs")
    parser.add_argument("--prompt", type=str, default="", help="the beginning of the text")
    parser.add_argument("--max_new_tokens", type=int, default=100, help="tokens to add at most")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy, 1 samples as trained")
    parser.add_argument("--top_k", type=int | None, default=None, help="draw among the k best tokens")
    parser.add_argument("--top_p", type=float | None, default=None, help="draw among the best tokens that reach p")
    parser.add_argument("--seed", type=int | None, default=None, help="repeats a text")
    parser.add_argument("--num_samples", type=int, default=1, help="texts to write, a line of dashes between them")
    config = parser.parse_args(args[1:])
    for name in ("max_new_tokens", "num_samples"):
        if config[name] < 1:
            raise ValueError(f"--{name} {config[name]} cannot be: it is at least 1")
    if config.seed is not None and not 0 <= config.seed <= MAX_SEED:
        raise ValueError(f"--seed {config.seed} cannot be: it lies in [0, {MAX_SEED}]")

    from lit_llm.inference.text import TextModel

    model = TextModel.from_checkpoint(config.checkpoint)
    for number in range(config.num_samples):
        if number:
            print("-" * 20)
        seed = None if config.seed is None else config.seed + number
        new = model.complete(config.prompt, config.max_new_tokens, config.temperature, config.top_k, config.top_p, seed)
        print(config.prompt + new, flush=True)
    return 0
