"""Text between two markers of a page, replaced by what results/ holds."""

from rd_tf.storage import InputError


def replace_between(text: str, name: str, between: str, page: str) -> str:
    """Puts text between the markers `<!-- name: begin -->` and `<!-- name: end -->`.

    Args:
        text: the page.
        name: of the markers.
        between: what belongs between them.
        page: the page's name, for the message.

    Raises:
        InputError: a marker is missing.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise InputError(f"{page} lacks the markers {begin} and {end}; put them where the text belongs")
    return f"{text.split(begin)[0]}{begin}\n{between}\n{text[text.index(end) :]}"
