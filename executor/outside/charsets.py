"""Reading a far side's bytes as text, by the charset that it names where that is one of pages.

A name of a charset comes from whoever answered, and not everything that goes by such a name here reads text: some spell
out escapes, some take a time that grows with the square of what they read.
"""

import codecs
import re
from contextlib import suppress
from typing import Final

_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9._:-]+)", re.IGNORECASE)
_OF_PAGES: Final = re.compile(
    r"ascii|utf-(?:8|16|32)(?:-[bl]e)?|utf-8-sig|iso8859-\d+|cp\d+|koi8-[rtu]|mac-[a-z]+|kz1048|ptcp154|tis-620"
    r"|big5(?:hkscs)?|gb2312|gbk|gb18030|hz|euc_[a-z0-9_]+|shift_jis(?:_2004|x0213)?|iso2022_[a-z0-9_]+|johab"
)


def named_charset(content_type: str) -> str:
    """Return the charset that a content type names; empty where it names none that a page may have."""
    found = _CHARSET.search(content_type)
    with suppress(LookupError, ValueError):
        name = codecs.lookup(found[1]).name if found else ""
        return name if _OF_PAGES.fullmatch(name) else ""
    return ""


def decoded(data: bytes, content_type: str) -> str:
    """Return bytes as text, by the charset that is named, or as UTF-8; what can not be read is shown as such."""
    return data.decode(named_charset(content_type) or "utf-8", "replace")
