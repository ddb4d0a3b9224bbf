"""The tokenizer of a pretrained model: the one place of this room that knows where such models are found."""

from lit_llm.data.tokenizer import Tokenizer, from_state
from lit_llm.data.tokenizer_folder import tokenizer_of
from lit_llm.weights.open import open_source
from lit_llm.weights.source import Source


def tokenizer_of_source(source: str) -> Tokenizer:
    """The tokenizer that a pretrained model was trained with.

    Args:
        source: A model of the Hugging Face hub, a folder of one, or a checkpoint, as for `--model.init_from`.

    Raises:
        ValueError: As in `come_along`.
    """
    return come_along(open_source(source))


def come_along(source: Source) -> Tokenizer:
    """The tokenizer that comes along with a source.

    Raises:
        ValueError: If there is none, it cannot be read, or it has more ids than the model.
    """
    if not source.has_tokenizer:
        raise ValueError(f"'{source.name}' comes without a tokenizer, and only with one can a text be made")
    if source.folder is not None:
        tokenizer = tokenizer_of(source.folder)
    else:
        assert source.tokenizer is not None
        try:
            tokenizer = from_state(source.tokenizer)
        except ValueError as error:
            raise ValueError(f"'{source.name}' cannot be used: {error}") from error
    rows = source.settings["init_args"].get("vocab_size")
    if rows is not None and tokenizer.vocab_size > rows:
        raise ValueError(
            f"the tokenizer of '{source.name}' has {tokenizer.vocab_size} ids and its model embeds {rows}; take both "
            "from the same place"
        )
    return tokenizer
