"""The fields of records and of their messages, which `docs/records.md` shows: used, ignored or refused."""

from typing import Any, NamedTuple

USED, IGNORED, REFUSED = "used", "ignored", "refused"
RECORD, MESSAGE = "record", "message"


class Field(NamedTuple):
    """Fields of one meaning.

    Args:
        names: Their names, any of them.
        use: Whether they are used, ignored (and counted in the report) or refused.
        form: Formats that have them.
        meaning: What becomes of them.
    """

    names: tuple[str, ...]
    use: str
    form: str
    meaning: str


QUESTIONS = ("instruction", "prompt", "question", "query", "inputs", "input", "problem", "user", "human")
ANSWERS = ("output", "completion", "response", "answer", "targets", "target", "solution", "assistant")
SYSTEMS = ("system", "system_prompt", "system_message")
TALKS = ("messages", "conversations", "conversation", "dialogue", "dialog", "data")
REASONS = ("reasoning_content", "reasoning", "thinking")
ROLES, TEXTS = ("role", "from", "speaker"), ("content", "value", "text")
TRAINS, MASKS = ("train", "training", "loss", "weight"), ("masked", "mask")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
IDS = (
    *("id", "_id", "idx", "index", "uuid", "uid", "hash", "prompt_id", "conversation_id", "conversation_hash"),
    *("message_id", "parent_id", "question_id", "user_id", "message_tree_id", "row_id", "source_id", "example_id"),
)
METADATA = (
    *("source", "dataset", "dataset_name", "data_source", "category", "subcategory", "task", "task_type", "type"),
    *("topic", "topics", "tags", "tag", "domain", "subject", "level", "difficulty", "license", "url", "title"),
    *("language", "lang", "split", "model", "model_name", "generator", "created_at", "created_date", "timestamp"),
)
SCORES = (
    *("score", "scores", "score_chosen", "score_rejected", "chosen_score", "rejected_score", "rating", "ratings"),
    *("chosen_rating", "rejected_rating", "chosen-rating", "rejected-rating", "chosen_model", "rejected_model"),
    *("chosen-model", "rejected-model", "margin", "helpfulness", "correctness", "coherence", "complexity", "verbosity"),
)
# Two answers and a third field that says which one was preferred: by which value the first, by which the second.
CHOICES: dict[tuple[str, str, str], tuple[Any, Any]] = {
    ("human_ref_A", "human_ref_B", "labels"): (1, 0),  # Stanford Human Preferences
    ("response_0", "response_1", "better_response_id"): (0, 1),  # PKU-SafeRLHF
    ("conversation_a", "conversation_b", "winner"): ("model_a", "model_b"),  # Chatbot Arena
}

RECORD_FIELDS = (
    Field(
        QUESTIONS, USED, "Alpaca, Dolly, TRL, and others", "the user's words; the first of these names, where several"
    ),
    Field(("input", "context"), USED, "Alpaca, Dolly", "beside an instruction: the input that belongs to it"),
    Field(ANSWERS, USED, "Alpaca, Dolly, TRL, and others", "the answer; a text, or a list of messages (TRL)"),
    Field(SYSTEMS, USED, "LLaMA-Factory, ShareGPT, OpenOrca", "the system message, where the messages have none"),
    Field(("history",), USED, "LLaMA-Factory", "earlier turns, pairs of a question and an answer; answers carry loss"),
    Field(TALKS, USED, "OpenAI, ShareGPT, UltraChat, LIMA", "the messages; or texts of user and assistant in turns"),
    Field(("tools",), USED, "OpenAI, ShareGPT, xLAM", "handed to the chat template as they are; also as a JSON string"),
    Field(("functions",), USED, "OpenAI (older)", "handed to the chat template, each as a tool of the type `function`"),
    Field(("answers",), USED, "xLAM, Nectar", "beside `query` and `tools`: the calls; beside ranks: the answers"),
    Field(("chat_template_kwargs",), USED, "TRL, vLLM", "handed to the chat template (`enable_thinking`, …)"),
    Field(("chosen", "rejected"), USED, "TRL, LLaMA-Factory, hh-rlhf", "a text, a message, messages, or a transcript"),
    Field(("completions",), USED, "UltraFeedback", "of a pair: the answers with the highest and the lowest score"),
    *(
        Field(keys, USED, form, "two answers, and which of them is preferred; a tie is refused")
        for keys, form in zip(CHOICES, ("SHP", "PKU-SafeRLHF", "Chatbot Arena"), strict=True)
    ),
    Field(("parallel_tool_calls",), IGNORED, "OpenAI", "a setting of a server; no template knows it"),
    Field(IDS, IGNORED, "many", "identifiers"),
    Field(METADATA, IGNORED, "many", "metadata"),
    Field(SCORES, IGNORED, "UltraFeedback, HelpSteer", "scores of whole answers: the loss knows none"),
    Field(MEDIA, REFUSED, "LLaMA-Factory, TRL", "models here read text alone"),
    Field(("label", "kto_tag"), REFUSED, "KTO", "true or false: one answer judged alone; any other label is ignored"),
    Field(("labels",), REFUSED, "TRL's stepwise supervision", "beside `completions` of texts: steps judged one by one"),
    Field(("segments",), REFUSED, "Axolotl", "text without a template"),
    Field(("chat", "text"), REFUSED, "Glaive, Guanaco", "transcripts and rendered text, where nothing else is there"),
)
MESSAGE_FIELDS = (
    Field(ROLES, USED, "OpenAI, ShareGPT", "who speaks"),
    Field(TEXTS, USED, "OpenAI, ShareGPT", "what is said: a text, a list of text parts, or nothing beside tool calls"),
    Field(("input", "output"), USED, "Capybara", "a question and its answer, where there is no role"),
    Field(("tool_calls",), USED, "OpenAI", "calls of the assistant, which carry loss; handed to the chat template"),
    Field(("function_call",), USED, "OpenAI (older)", "one such call"),
    Field(("tool_call_id", "name"), USED, "OpenAI", "handed to the chat template"),
    Field(REASONS, USED, "Qwen, DeepSeek, gpt-oss", "handed to the chat template, and told where it does not write it"),
    Field(TRAINS, USED, "OpenAI, Mistral, Axolotl, ms-swift", "false or 0 keeps an answer out of the loss"),
    Field(MASKS, USED, "torchtune", "true or 1 keeps an answer out of the loss"),
    Field((*MEDIA, "audio"), REFUSED, "OpenAI", "models here read text alone"),
    Field(("refusal", "annotations", "id", "type", "timestamp", "language"), IGNORED, "OpenAI, others", "metadata"),
)
KNOWN = {
    kind: {name: field.use for field in reversed(fields) for name in field.names}
    for kind, fields in ((RECORD, RECORD_FIELDS), (MESSAGE, MESSAGE_FIELDS))
}


def says_something(value: Any) -> bool:
    """Whether a value carries a text or a flag, itself or somewhere inside; a number other than 0 and 1 does not."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, int | float):  # True and False are numbers, too
        return value in (0, 1)
    if isinstance(value, dict):
        return any(map(says_something, value.values()))
    return isinstance(value, list | tuple) and any(map(says_something, value))


def is_worth_a_note(name: str, value: Any, kind: str) -> bool:
    """Whether it is told that a field is not used: it carries a text or a flag; 0 or 1 is a number in a known field."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return says_something(value) and not (is_number and KNOWN[kind].get(name) == IGNORED)


def tables() -> str:
    """Both tables in Markdown, as `docs/records.md` has them."""
    parts = []
    for title, fields in (("Fields of a record", RECORD_FIELDS), ("Fields of a message", MESSAGE_FIELDS)):
        rows = (
            f"| {', '.join(f'`{name}`' for name in field.names)} | {field.use} | {field.form} | {field.meaning} |"
            for field in fields
        )
        parts.append(
            "\n".join([f"### {title}", "", "| fields | use | found in | meaning |", "|---|---|---|---|", *rows])
        )
    return "\n\n".join(parts)
