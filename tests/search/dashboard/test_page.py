import json
import re
from itertools import product

import pytest

from search.curves import COLOURS
from search.dashboard import page


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" as WCAG 2.2 defines it."""
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def values(css: str) -> list[dict[str, str]]:
    """The colours of each theme: light, dark by the system, dark by choice."""
    roots = re.findall(r":root[^{]*\{([^}]*)\}", css)
    return [dict(re.findall(r"--(\w+):(#\w{6})", root)) for root in roots]


def test_the_measure_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)


def test_every_colour_can_be_read_on_every_ground():
    """Grid lines aside, each is a colour of words or of lines that mean something."""
    for theme in values(page.style()):
        inks = {part: theme[part] for part in (*COLOURS, *page.PALETTE) if part != "grid"}
        weak = {
            f"{part} on {ground}": round(contrast(ink, theme[ground]), 2)
            for (part, ink), ground in product(inks.items(), page.GROUNDS)
            if contrast(ink, theme[ground]) < 4.5
        }
        assert weak == {}


def test_every_variable_has_a_value_in_every_theme():
    css = page.style()
    used = set(re.findall(r"var\(--(\w+)\)", css)) - {"part"}  # set by the legend's script
    light, by_system, by_choice = values(css)
    assert {"page", "card", "ink"} <= used <= set(light)
    assert by_system == by_choice and set(by_system) == set(light) and by_system != light
    assert css.count("{") == css.count("}")


def test_the_system_decides_until_the_reader_does():
    css = page.style()
    assert "@media(prefers-color-scheme:dark){:root:not([data-theme]){" in css
    assert ":root[data-theme=dark]{" in css


def test_scripts_ask_for_colours_that_there_are():
    names = set(re.findall(r"\b(?:colour|tint)\(\"(\w+)\"", page.script()))
    assert {"ink", "trial"} <= names <= {*COLOURS, *page.GROUNDS, *page.PALETTE}
    listed = re.search(r"PALETTE = (\[.*?\])", page.script())
    assert json.loads(listed[1]) == list(page.PALETTE)


def test_json_in_html_is_only_data():
    value = {"</script>": "<!-- & \u2028\u2029 \ud800 é"}
    text = page.json_in_html(value)
    assert text.isascii() and not set("<>&") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="Out of range"):
        page.json_in_html({"x": float("nan")})


def test_what_stands_in_a_part_is_no_place_for_another():
    text = page.live_page("{{style}} <b>", ["{{scripts}}"])
    assert "<title>{{style}} &lt;b&gt;</title>" in text
    assert '"name":"{{scripts}}"' in text


def test_served_files_have_names_that_change_with_them():
    files = page.served()
    assert [name.split(".")[0] for name in files] == ["plotly", "page", "page"]
    assert all(re.fullmatch(r"[a-z.]+?\.[0-9a-f]{16}\.(js|css)", name) for name in files)
    assert all(f"/static/{name}" in page.live_page("", []) for name in files)


def test_a_script_that_would_end_its_element_is_refused():
    with pytest.raises(ValueError, match="</SCRIPT"):
        page._inlined("a = '</SCRIPT>'")


def test_the_script_never_writes_html():
    """The one way from a text to something that runs is closed by never being used."""
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(", page.script()
    )
