"""Words of any script: what answers are compared by."""

import re
import unicodedata
from functools import cache

# Blocks of scripts that put no spaces between words. Korean does, and the punctuation of these blocks is no word.
SPACELESS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff\u19e0-\u19ff"  # Khmer
    "\u3005-\u3007\u3021-\u302f\u3031-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # Japanese syllables, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
LAST_MARK = 0x1F000  # beyond are variation selectors alone
JOINERS = dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D))  # they change how a word looks, and not which it is


def words(text: str) -> list[str]:
    """The words of a text, whatever its case and however its characters are written; punctuation is none.

    A word is letters, digits and the marks that combine with them. Where a script puts no spaces between words, each
    character (code point) counts by itself.
    """
    if text.isascii():
        return re.findall(r"\w+", text.casefold())
    return _pattern().findall(unicodedata.normalize("NFKC", text).casefold().translate(JOINERS))


@cache
def _pattern() -> re.Pattern[str]:
    marks = "".join(c for c in map(chr, range(0x300, LAST_MARK)) if unicodedata.category(c).startswith("M"))
    spaceless = f"(?:(?=[{SPACELESS}])[\\w{marks}])"
    return re.compile(f"{spaceless}|(?:(?![{SPACELESS}])[\\w{marks}])+")
