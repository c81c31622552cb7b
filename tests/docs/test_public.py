"""What is public: names and signatures as they are kept, each on a reference page.

public.txt beside this file is what the last version had, each name once, by its
shortest path. A change of it is a change for users:
`python tests/docs/test_public.py` writes it anew, and CHANGELOG.md says so.
"""

import inspect
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "_ext"))

import public

SNAPSHOT = Path(__file__).with_name("public.txt")


def signature(value):
    if not (inspect.isroutine(value) or inspect.isclass(value)):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ""
    bare = [p.replace(annotation=p.empty) for p in parameters]
    return str(inspect.Signature(bare))


def lines():
    return [f"{one}{signature(one.value)}" for one in public.names()]


def test_what_is_public_is_as_it_was():
    assert lines() == SNAPSHOT.read_text().splitlines()


def test_every_public_module_says_what_of_it_is():
    silent = [name for name, module in public.modules().items() if not module.__doc__]
    assert silent == []
    # A folder of doors, such as optjax.fused, may have none of its own.
    folders = {name.rpartition(".")[0] for name in public.modules()}
    for name, module in public.modules().items():
        exported = getattr(module, "__all__", None)
        assert exported is not None or name in folders, f"{name} has no __all__"
        assert [item for item in exported or [] if item.startswith("_")] == [], name


def test_every_public_name_is_on_one_page_of_the_reference():
    pages = public.documented()
    assert sorted({str(one) for one in public.names()} - set(pages)) == []
    assert {name: at for name, at in pages.items() if len(at) > 1} == {}


if __name__ == "__main__":
    SNAPSHOT.write_text("".join(line + "\n" for line in lines()))
