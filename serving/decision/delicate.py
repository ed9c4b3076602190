"""What no sentence names: a screen at a checkout is seen by others, and what somebody takes for
their health or their body is theirs to tell."""

from functools import lru_cache
from typing import Final

# In the names of categories, in small letters. A shop in another language brings its own.
DELICATE: Final = (
    *("incontinen", "contracep", "prophylact", "condom", "family planning", "pregnan", "fertility"),
    *("feminine", "fem.", "fem ", "tampon", "menstrua", "douche", "yeast treat", "lubricant"),
    *(
        "sexual",
        "laxative",
        "antacid",
        "hemorrhoid",
        "haemorrhoid",
        "digestive",
        "diabet",
        "glucose",
    ),
    *("medic", "pharma", "analgesic", "antibiotic", "smoking cessation", "diet"),
    *("cold and flu", "sinus", "mouth sore", "adult"),
)


@lru_cache(maxsize=4_096)
def is_delicate(path: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """Whether a category on the `path` has one of `words`, in small letters, in its name."""
    names = [one.lower() for one in path]
    return any(word in name for word in words for name in names)
