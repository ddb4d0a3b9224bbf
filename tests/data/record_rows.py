"""Records as data sets have them, and what is read of each: messages in short, and lines of the report."""

import json
from typing import Any


def share(*turns: tuple[str, str]) -> list[dict[str, str]]:
    """ShareGPT's messages."""
    return [{"from": who, "value": text} for who, text in turns]


def said(*texts: str) -> list[dict[str, str]]:
    """OpenAI's messages, of user and assistant in turns."""
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


CALL = {"name": "f", "arguments": {"a": 1}}
TOOL = {"name": "f", "description": "d", "parameters": {}}
CALLED = "a+f{'a': 1}"
ASKED, ANSWERED = ("human", "q"), ("gpt", "a")
# Name of the data set or format: the record, the messages that are read (speaker, text), what is told.
READ: dict[str, tuple[dict[str, Any], str, str]] = {
    "Dolly": (
        {"instruction": "q", "context": "c", "response": "a", "category": "closed_qa"},
        "u:q|c a:a",
        "field names found: 'instruction' as instruction, 'context' as input, 'response' as output (1)\n"
        "fields not used: 'category' (1)",
    ),
    "LLaMA-Factory": (
        {"instruction": "q", "input": "", "output": "a", "system": "s", "history": [["q0", "a0"], ["q1", "a1"]]},
        "s:s u:q0 a:a0 u:q1 a:a1 u:q a:a",
        "",
    ),
    "history as JSON": ({"instruction": "q", "output": "a", "history": '[["q0", "a0"]]'}, "u:q0 a:a0 u:q a:a", ""),
    "GSM8K": (
        {"question": "q", "answer": "a"},
        "u:q a:a",
        "field names found: 'question' as instruction, 'answer' as output (1)",
    ),
    "OpenOrca": (
        {"system_prompt": "s", "question": "q", "response": "a"},
        "s:s u:q a:a",
        "field names found: 'question' as instruction, 'response' as output (1)",
    ),
    "Aya": (
        {"inputs": "q", "targets": "a"},
        "u:q a:a",
        "field names found: 'inputs' as instruction, 'targets' as output (1)",
    ),
    "HelpSteer": (
        {"prompt": "q", "response": "a", "helpfulness": 1, "verbosity": 0},
        "u:q a:a",
        "field names found: 'prompt' as instruction, 'response' as output (1)",
    ),
    "MetaMath": (
        {"query": "q", "original_question": "o", "response": "a"},
        "u:q a:a",
        "field names found: 'query' as instruction, 'response' as output (1)\n"
        "unknown fields, not used: 'original_question' (1)",
    ),
    "TRL": (
        {"prompt": said("q"), "completion": [{"role": "assistant", "content": "a"}]},
        "u:q a:a",
        "field names found: 'prompt' as instruction, 'completion' as output (1)",
    ),
    "SlimOrca": (
        {"conversations": [{"from": "system", "value": "s", "weight": None}, *share(ASKED, ANSWERED)]},
        "s:s u:q a:a",
        "",
    ),
    "OpenHermes": (
        {"conversations": share(ASKED, ANSWERED), "system_prompt": None, "skip_prompt_formatting": False, "id": "i"},
        "u:q a:a",
        "unknown fields, not used: 'skip_prompt_formatting' (1)\nfields not used: 'id' (1)",
    ),
    "a system message twice": (
        {"system": "other", "messages": [{"role": "developer", "content": "s"}, *said("q", "a")]},
        "s:s u:q a:a",
        "fields not used: 'system' (1)",
    ),
    "UltraChat": ({"data": ["q", "a", "q2", "a2"]}, "u:q a:a u:q2 a:a2", ""),
    "LIMA": ({"conversations": ["q", "a"]}, "u:q a:a", ""),
    "Capybara": ({"conversation": [{"input": "q", "output": "a"}]}, "u:q a:a", ""),
    "messages as JSON": ({"messages": json.dumps(said("q", "a"))}, "u:q a:a", ""),
    "parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "2"}]},
                said("q", "a")[1],
            ]
        },
        "u:q2 a:a",
        "",
    ),
    "ToolACE": (
        {
            "system": "s",
            "conversations": share(("user", "q"), ("assistant", "[f()]"), ("tool", "r"), ("assistant", "a")),
        },
        "s:s u:q a:[f()] t:r a:a",
        "",
    ),
    "Glaive of LLaMA-Factory": (
        {
            "conversations": share(ASKED, ("function_call", json.dumps(CALL)), ("observation", "r"), ANSWERED),
            "tools": json.dumps([TOOL]),
        },
        f"u:q {CALLED} t:r a:a",
        "",
    ),
    "words before a call": (
        {
            "conversations": share(
                ASKED, ("gpt", "let me"), ("function_call", json.dumps(CALL)), ("observation", "r"), ANSWERED
            )
        },
        "u:q a:let me+f{'a': 1} t:r a:a",
        "turns out of order: messages joined to one of the same speaker before (1)",
    ),
    "xLAM": ({"query": "q", "answers": json.dumps([CALL]), "tools": json.dumps([TOOL])}, f"u:q {CALLED}", ""),
    "OpenAI": (
        {
            "messages": [
                {"role": "user", "content": "q", "name": "n"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "function", "function": CALL}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "r"},
                {"role": "assistant", "content": "a", "refusal": None, "weight": 1},
            ],
            "tools": [{"type": "function", "function": TOOL}],
            "parallel_tool_calls": False,
        },
        f"u:q {CALLED} t:r a:a",
        "fields not used: 'parallel_tool_calls' (1)",
    ),
    "OpenAI (older)": (
        {
            "messages": [
                *said("q"),
                {"role": "assistant", "content": None, "function_call": CALL},
                {"role": "function", "name": "f", "content": "r"},
                {"role": "assistant", "content": "a"},
            ],
            "functions": [TOOL],
        },
        f"u:q {CALLED} t:r a:a",
        "",
    ),
    "WildChat": (
        {"conversation": [{**message, "toxic": False} for message in said("q", "a")], "turn": 1},
        "u:q a:a",
        "unknown fields, not used: 'toxic' of messages (2), 'turn' (1)",
    ),
    "begins with an answer, ends with a question": (
        {"conversations": share(("gpt", "hi"), ASKED, ANSWERED, ("human", "thanks"))},
        "u:q a:a",
        "turns out of order: messages after the last answer left out (1), "
        "messages before the first question left out (1)",
    ),
    "two in a row": (
        {"conversations": share(ASKED, ("human", "q2"), ANSWERED, ("gpt", "b"), ("human", "q3"), ("gpt", "c"))},
        "u:q\n\nq2 a:a\n\nb u:q3 a:c",
        "turns out of order: messages joined to one of the same speaker before (2)",
    ),
}
# Name: the record, its kind in the count of what is left out, and the sentence.
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "KTO": ({"prompt": "q", "completion": "a", "label": True}, "label of KTO", "judged good or bad \\(KTO's form\\)"),
    "KTO of LLaMA-Factory": ({"instruction": "q", "output": "a", "kto_tag": False}, "label of KTO", "'kto_tag'"),
    "a preference pair": ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preference pair", "--data Preferences"),
    "images": ({"messages": said("q", "a"), "images": ["a.png"]}, "images", "'images': models here read text alone"),
    "an image part": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, said("q", "a")[1]]},
        "content that is not text",
        "message 1 has a part of the type 'image_url'",
    ),
    "OpenAssistant": ({"text": "hi", "role": "prompter"}, "message of a tree", "one message of a tree"),
    "Glaive": ({"system": "SYSTEM: s", "chat": "USER: q"}, "only chat", "its turns in one text, 'chat'"),
    "Guanaco": ({"text": "### Human: q"}, "only text", "its turns in one text, 'text'"),
    "segments": ({"segments": [{"label": True, "text": "a"}]}, "segments", "text without a template"),
    "steps": ({"prompt": "q", "completions": ["a"], "labels": [True]}, "stepwise supervision", "single steps"),
    "SQuAD": ({"question": "q", "context": "c", "answers": {"text": ["a"]}}, "without output", "has no 'output'"),
    "MMLU": ({"question": "q", "answer": 2}, "no text", "holds the int '2' in 'answer'"),
    "a fraction": (
        {"messages": [said("q")[0], {**said("q", "a")[1], "weight": 0.5}]},
        "unknown weight",
        "message 2 has 0.5 as 'weight', which must be true or false, or 1 or 0",
    ),
    "nothing trains": (
        {"messages": [said("q")[0], {**said("q", "a")[1], "train": False}]},
        "no answer that trains",
        "all of its answers out of the loss",
    ),
    "contradiction": (
        {"messages": [said("q")[0], {**said("q", "a")[1], "train": False, "weight": 1}]},
        "contradicting flags",
        "contradict each other",
    ),
    "a call that is not JSON": (
        {"conversations": share(ASKED, ("function_call", "f(1)"), ("observation", "r"), ANSWERED)},
        "no JSON",
        "message 2 has 'f\\(1\\)' as a tool call, which is not valid JSON",
    ),
    "a call of nothing": (
        {"messages": [said("q")[0], {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}]},
        "no tool call",
        "message 2 has a tool call without a name",
    ),
    "a tool that nobody called": (
        {"messages": [said("q")[0], {"role": "tool", "content": "r"}, said("q", "a")[1]]},
        "role order",
        "has the roles user, tool, assistant",
    ),
    "messages that are no JSON": ({"messages": "hello"}, "no JSON", "'messages', which is not valid JSON"),
    "history": ({"instruction": "q", "output": "a", "history": [["q"]]}, "no history", "pairs of question and answer"),
    "settings": (
        {"instruction": "q", "output": "a", "chat_template_kwargs": {"messages": []}},
        "chat_template_kwargs",
        "named settings other than",
    ),
    "tools": ({"messages": said("q", "a"), "tools": ["f"]}, "no tools", "have no named fields"),
}
