"""What a sweep is, as plain data, and in which words two of them differ."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optjax.sweep.problem import SweepError

__all__ = ["check_same"]


def check_same(saved: Any, wanted: Mapping[str, Any], directory: Path) -> None:
    """Refuse to go on with another sweep.

    Args:
      saved: what the directory says of its sweep.
      wanted: what this call's sweep is.
      directory: named in the refusal.

    Raises:
      SweepError: naming what differs.
    """
    # Through JSON, so that tuples and lists are alike.
    wanted = json.loads(json.dumps(wanted))
    for key in [*wanted, *(key for key in saved if key not in wanted)]:
        if saved.get(key) != wanted.get(key):
            was, is_ = _short(saved.get(key)), _short(wanted.get(key))
            raise SweepError(
                f"{directory} holds another sweep, whose {key} was {was} and not "
                f"{is_}; choose another out=, or delete it"
            )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"another list ({len(value)} long)"
