"""Words of any script, and what answers are scored by."""

import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from lit_llm.data.conversations import Question
from lit_llm.data.words import words
from lit_llm.inference.text import Completion
from lit_llm.training.answers import scores

WITHOUT_SPACES = r"[\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Han}ー]"
MARK = r"[\p{L}\p{M}\p{N}\p{Pc}]"


def by_properties(text: str) -> list[str]:
    """The same by the names that Unicode has for scripts, in another library."""
    text = regex.sub("[\u00ad\u200b-\u200d]", "", unicodedata.normalize("NFKC", text).casefold())
    return regex.findall(rf"(?={WITHOUT_SPACES}){MARK}\p{{M}}{{0}}|(?:(?!{WITHOUT_SPACES}){MARK})+", text)


def longest_common(one: list[str], other: list[str]) -> int:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


PAIRS = {
    "English": ("The cat sat on the mat.", "A cat sat, on a MAT!"),
    "Chinese": ("我喜欢机器学习。", "我很喜欢深度学习"),
    "Japanese": ("東京タワーは高いです。", "東京の塔は高い"),
    "Thai": ("ฉันรักแมวที่บ้าน", "ฉันรักหมาที่บ้าน"),
    "Lao": ("ສະບາຍດີ", "ສະບາຍບໍ່"),
    "Khmer": ("ខ្ញុំស្រលាញ់ឆ្មា", "ខ្ញុំស្រលាញ់ឆ្កែ"),
    "Burmese": ("မြန်မာစာ", "မြန်မာနိုင်ငံ"),
    "Korean": ("나는 고양이를 좋아한다", "나는 개를 좋아한다"),
    "Russian": ("Ёжик в тумане, ой!", "ёжик в лесу"),
    "French": ("Déjà vu, l'été à Nîmes", "deja vu, l'été à Nîmes"),
    "Hindi": ("हिन्दी में कि लिखो", "हिन्दी में का लिखो"),
    "Arabic": ("اللغة العَرَبِيَّة جميلة", "اللغة العبرية جميلة"),
    "mixed": ("我用GPT 4模型", "我用gpt 3.5模型"),
    "composed": ("cafe\u0301 noir", "caf\u00e9 noir"),
}


@pytest.mark.parametrize("language", PAIRS)
def test_rouge_l_in_every_script(language: str) -> None:
    """By the words of another library's rules, and a longest common subsequence written out."""
    said, wanted = PAIRS[language]
    one, other = by_properties(said), by_properties(wanted)
    assert (words(said), words(wanted)) == (one, other)
    common = longest_common(one, other)
    expected = 2 * common / (len(one) + len(other))
    asked = [Question("?", [1], wanted, 3)]
    found = scores(asked, [Completion(said, [1], "stop")], 64)
    assert found["rouge_l"] == pytest.approx(expected, abs=1e-6)
    assert found["exact_match"] == float(one == other)
    assert (found["rouge_l"] < 1) == (language != "composed")
    assert found["rouge_l"] > 0.2


def test_words() -> None:
    assert words("Don't stop; it's 3.5!") == ["don", "t", "stop", "it", "s", "3", "5"]
    assert words("我喜欢GPT模型\uff0c3个。") == ["我", "喜", "欢", "gpt", "模", "型", "3", "个"]
    assert words("हिन्दी कि का") == ["हिन्दी", "कि", "का"]
    assert words("\u0645\u06cc\u200c\u062e\u0648") == ["\u0645\u06cc\u062e\u0648"]
    assert words("…!? 🙂") == []


@given(st.text(st.sampled_from("aZé\u0301ß1 .,_日本ター한국ไทยที่ລາວខ្មែរမြန်हिन्दीабвע…🙂"), max_size=40))
def test_nothing_of_a_word_is_dropped(text: str) -> None:
    """Every letter, mark and digit is in a word."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    assert "".join(words(text)) == "".join(c for c in folded if unicodedata.category(c)[0] in "LMN" or c == "_")
