"""Names that users gave, as tables, plots, pictures and log lines can show them.

A class may be called anything: with control characters, line breaks, the halves of letters that a name in no
UTF-8 leaves behind. Names go through `shown` and no other escaping: tables get them as `rich.text.Text` and
plots with `parse_math=False`, so neither reads markup out of them.
"""

import unicodedata

NAME_LIMIT = 60  # letters of a class name in a table or plot
LINE_LIMIT = 200  # letters of a line on a picture
REPLACEMENT = '\ufffd'
JOINERS = '\u200c\u200d'  # part of how words are written in several scripts


def shown(text: str, *, limit: int = NAME_LIMIT) -> str:
    """Return a text as one line of visible letters.

    Args:
        text: anything.
        limit: longer ones keep this many letters, of their beginning and end.

    Returns:
        `text` where nothing is wrong with it; quoted if there is nothing to see.
    """
    letters = (
        ' ' if unicodedata.category(letter).startswith('Z')
        else letter if letter.isprintable() or letter in JOINERS
        else REPLACEMENT
        for letter in text
    )  # fmt: skip
    line = ''.join(letters)
    if not line.strip():
        return repr(line)
    if len(line) > limit:
        end = limit // 3
        return f'{line[: limit - end - 1]}…{line[-end:]}'
    return line
