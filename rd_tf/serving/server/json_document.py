"""A request's body as JSON."""

import json
import math
from typing import Any

from rd_tf.serving.server.serving_error import invalid

_WHITESPACE = " \t\r\n"


def read_document(body: bytes) -> dict[str, Any]:
    """Parses a body as tensorflow_model_server does: NaN, Infinity and -Infinity are numbers, and what follows the
    document is not looked at.

    Raises:
        ServingError: the body is no JSON object in UTF-8, is nested too deeply, or holds a number beyond float64.
    """
    text = body.decode("utf-8-sig", "surrogateescape").lstrip(_WHITESPACE)
    try:
        document, end = json.JSONDecoder(parse_float=_number).raw_decode(text)
        text[:end].encode()
    except UnicodeEncodeError:
        raise invalid("JSON parse error: not UTF-8") from None
    except RecursionError:
        raise invalid("JSON parse error: nested too deeply") from None
    except ValueError as error:
        raise invalid(f"JSON parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid("JSON value is not an object")
    return document


def signature_name(document: dict[str, Any]) -> str:
    """The signature a document asks for; empty where it names none."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' must be a string")
    return name


def write_document(document: dict[str, Any]) -> bytes:
    """An answer's body. Bytes that are no UTF-8 go out as they are: strings carry them as surrogate escapes."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _number(text: str) -> float:
    value = float(text)
    # json would make infinity of 1e999, without a word.
    if math.isinf(value):
        raise ValueError(f"number {text[:40]} is too big")
    return value
