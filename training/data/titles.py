"""Readable words from a till's shouting abbreviations: `FRZN SS PREMIUM ENTREES/DNRS/N` becomes
`Frozen Single Serve Premium Entrees/Dinners`."""

import re
from functools import cache

# Run-together words of the source, as whole phrases.
_PHRASES = {
    "BEERALEMALT": "BEER, ALE & MALT",
    "SAUCESSALSAPICANTEE": "SAUCES, SALSA & PICANTE",
    "CTLRYTBLCLTHSTTHPKSST": "CUTLERY, TABLECLOTHS & TOOTHPICKS",
    "SW GDS": "SWEET GOODS",
    "MISC.": "MISCELLANEOUS",
    "FEM.": "FEMININE",
    "HYGN.": "HYGIENE ",
    "FLUID MILK WHITE ONLY": "WHITE MILK",
}
_WORDS = {
    "BKD": "BAKED", "BN": "BEANS", "BRD": "BREAD", "BRKFST": "BREAKFAST", "BTL": "BOTTLE",
    "BTR": "BUTTER", "CARB": "CARBONATED", "CATFD": "CAT FOOD", "CATSUP": "KETCHUP",
    "CHICK": "CHICKEN", "CHIX": "CHICKEN", "CHOC": "CHOCOLATE", "CHOCOCLATE": "CHOCOLATE",
    "CKYS": "COOKIES", "CLEANG": "CLEANING", "CND": "CANNED", "CNDY": "CANDY",
    "CNTRL": "CONTROL", "CONC": "CONCENTRATE", "CRBNTD": "CARBONATED", "CRKR": "CRACKERS",
    "CRMD": "CREAMED", "CRYSTL": "CRYSTAL", "DNRS": "DINNERS", "DOGFD": "DOG FOOD", "DPS": "DIPS",
    "DRNK": "DRINK", "DRNKING": "DRINKING", "DRNKNG": "DRINKING", "DRNKS": "DRINKS",
    "DRP": "DROPS", "DRSNG": "DRESSING", "DRY BN": "DRY BEANS", "DSH": "DISHES",
    "EXCE": "", "FD": "FOOD", "FDS": "FOODS", "FLVR": "FLAVOR", "FLVRD": "FLAVORED",
    "FRD": "FRIED", "FRZ": "FROZEN", "FRZN": "FROZEN", "GM": "GENERAL MERCHANDISE",
    "GRND": "GROUND", "HBC": "HEALTH & BEAUTY", "INCL": "", "IQF": "INDIVIDUALLY FROZEN",
    "IWS": "INDIVIDUALLY WRAPPED", "JCE": "JUICE", "JHOOK": "J-HOOK", "LOZNG": "LOZENGES",
    "MACH": "MACHINE", "MISC": "MISCELLANEOUS", "MLK": "MILK", "MLT": "MULTI",
    "MNERAL": "MINERAL", "MNR": "MINOR", "MNRL": "MINERAL", "MULT": "MULTI", "MXS": "MIXES",
    "MX": "MIX", "PCKGD": "PACKAGED", "PK": "PACK", "PKG": "PACKAGE",
    "PKLD": "PICKLED", "PLSTC": "PLASTIC", "PNCH": "PUNCH", "PNT": "PEANUT",
    "PPK": "PREPACKED", "PREM": "PREMIUM",
    "PREP": "PREPARED", "PRPCK": "PREPACKED", "PWDR": "POWDER", "PWDRS": "POWDERS",
    "REFRGRATD": "REFRIGERATED", "REFRIG": "REFRIGERATED", "RTS": "READY TO SERVE",
    "RW": "RANDOM WEIGHT", "SALD": "SALAD", "SAUS": "SAUSAGE", "SFT": "SOFT",
    "SGL": "SINGLE", "SHERBTS": "SHERBETS", "SNDWCH": "SANDWICH", "SNGL": "SINGLE",
    "SNKS": "SNACKS", "SPECILATY": "SPECIALTY", "SPLY": "SUPPLY", "SPRD": "SPREAD",
    "SRV": "SERVE", "SS": "SINGLE SERVE", "STK": "STICK", "SUP": "SUPER",
    "SUPPPLIES": "SUPPLIES", "SV": "SERVE", "SWT": "SWEET", "SYRP": "SYRUP",
    "TORT": "TORTILLA", "TRSH": "TRASH", "VAC PAC": "VACUUM PACKED", "VEG": "VEGETABLES",
    "VEND": "VENDING", "WHL": "WHOLE", "WHLSM": "WHOLESOME", "WT": "WEIGHT", "WTR": "WATER",
}  # fmt: skip
# Types that say nothing without their category.
_GENERIC = frozenset(
    {
        "BETTER FOR YOU", "BLENDS", "CHILDRENS LOW END", "DECOR", "ECONOMY", "ENHANCED",
        "GARDEN PLUS", "LEAN", "MAINSTREAM", "MARINATED", "MISCELLANEOUS", "OTHER", "PANTRY",
        "PATTIES", "PREMIUM", "PRIMAL", "PROMOTIONAL", "QUARTS", "REGULAR GARDEN", "SEASONAL",
        "SUPER PREMIUM", "TRADITIONAL",
    }
)  # fmt: skip
_SMALL = frozenset({"and", "with", "for", "in", "on", "the", "of", "to", "or", "not", "ml", "a"})
_UNITS = {
    "OZ": "oz",
    "CT": "ct",
    "LB": "lb",
    "ML": "ml",
    "PK": "pk",
    "IN": "in",
    "GA": "gal",
    "L": "L",
}


@cache
def readable(raw: str) -> str:
    """`raw` without truncated tails, abbreviations written out, in title case."""
    text = re.sub(r"\([^)]*$", "", raw.upper())  # the source cuts at 30 characters
    if len(raw) >= 28:
        text = re.sub(r"(?:[\s/-]+(?:[A-Z]{1,3}|ALL))\s*$", "", text)
    for phrase, written_out in _PHRASES.items():
        text = text.replace(phrase, written_out)
    text = re.sub(r"(?<=\d)PK", " PACK", text)
    text = re.sub(r"[A-Z]+", lambda match: _WORDS.get(match[0], match[0]), text)
    text = re.sub(r"\s*([&:])\s*", lambda m: " & " if m[1] == "&" else ": ", text)
    words = re.sub(r"\s+", " ", text).strip(" -/:&,").split(" ")
    return " ".join(_cased(word, first=place == 0) for place, word in enumerate(words))


def _cased(word: str, *, first: bool) -> str:
    if not first and word.lower() in _SMALL:
        return word.lower()
    return re.sub(r"[A-Za-z][A-Za-z']*", lambda match: match[0].capitalize(), word)


def title_of(
    product_type: str | None, category: str | None, department: str | None, size: str | None
) -> str:
    """A title for a shopper, such as `Apple Sauce, 50 oz`."""
    name = product_type or category or department or "Item"
    title = readable(name) or "Item"
    if product_type in _GENERIC and category:
        title = f"{readable(category)}, {title}"
    return f"{title}, {size_of(size)}" if size and not _is_case(department, size) else title


def _is_case(department: str | None, size: str) -> bool:
    """Whether `size` is the crate that a shop receives: nobody buys 40 lb of bananas."""
    match = re.match(r"(\d+)[\d.-]*\s*(LB|CT)\b", size)
    if department != "PRODUCE" or match is None:
        return False
    return int(match[1]) > {"LB": 10, "CT": 12}[match[2]]


def size_of(raw: str) -> str:
    """`.5 OZ` as `0.5 oz`."""
    text = re.sub(r"\([^)]*\)", "", raw).strip()
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    return re.sub(r"[A-Z]+", lambda match: _UNITS.get(match[0], match[0].lower()), text)


def words_of(*texts: str | None) -> str:
    """The distinct words of `texts` in lower case and in order, for search and text models."""
    words = re.findall(r"[a-z0-9.]+", " ".join(text for text in texts if text).lower())
    return " ".join(dict.fromkeys(word.strip(".") for word in words if word.strip(".")))
