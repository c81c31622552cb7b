"""What is wrong with data: one message says what was sought, found, and the remedy."""

_GET_IMAGES = (
    "To get CIFAR-10: `hf download uoft-cs/cifar10 --repo-type dataset --local-dir "
    "FOLDER` (Parquet, https://huggingface.co/datasets/uoft-cs/cifar10), or "
    "cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html"
)
GET_TEXT = (
    "Any plain text in UTF-8 serves, for instance a book from "
    "https://www.gutenberg.org saved as `Plain Text UTF-8`"
)


class DataError(ValueError):
    """Data that is missing, damaged or not in the format that it should have."""

    def __init__(self, sought: str, found: str, remedy: str = _GET_IMAGES) -> None:
        super().__init__(f"looked for {sought}; found {found}. {remedy}")
