import re

import pytest

from search import page
from search.curves import COLOURS

SCRIPT = "<script>'x' & \"y\"</script>"
SAFE = "&lt;script&gt;&#x27;x&#x27; &amp; &quot;y&quot;&lt;/script&gt;"


def test_a_table_escapes_its_cells_and_tells_numbers_and_long_texts():
    long = "x" * 41
    text = page.table(("name", "n"), [(SCRIPT, 3), (long, 4)], right={1}, strong={1})
    assert text == (
        "<div class=scroll tabindex=0><table><thead><tr><th>name</th><th class=num>n</th></tr>"
        f"</thead><tbody><tr><td>{SAFE}</td><td class=num>3</td></tr>"
        f"<tr class=strong><td class=long>{long}</td><td class=num>4</td></tr>"
        "</tbody></table></div>"
    )


def test_a_document_holds_its_sections_and_leaves_out_the_empty_ones():
    text = page.document(SCRIPT, ["<p>one", "", "<p>two"])
    assert text.startswith("<!DOCTYPE html>")
    assert f"<title>{SAFE}</title>" in text
    assert "<section><p>one</section>\n<section><p>two</section>" in text
    assert text.count("<section>") == 2


def test_every_variable_of_the_style_sheet_has_a_value_in_light_and_dark():
    css = page.css()
    used = set(re.findall(r"var\(--(\w+)\)", css))
    assert {"page", "card", "ink"} <= used
    roots = re.findall(r":root\{([^}]*)\}", css)
    assert len(roots) == 2  # light, dark
    for root in roots:
        assert used <= set(re.findall(r"--(\w+):", root))
    assert f"--ink:{COLOURS['ink'][0]};" in roots[0]
    assert f"--ink:{COLOURS['ink'][1]};" in roots[1]
    assert css.count("{") == css.count("}")


def test_a_figure_comes_in_two_shapes_with_its_own_ids():
    text = page.figure(lambda fig: fig.add_subplot().plot([0, 1]), (4, 2), (2, 3), SCRIPT)
    # Inches are 72 units of an SVG.
    assert "<div class=wide>" in text and 'viewBox="0 0 288 144"' in text
    assert "<div class=narrow>" in text and 'viewBox="0 0 144 216"' in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert ids and len(ids) == len(set(ids))
    assert text.count(f'aria-label="{SAFE}"') == 2
    assert "<script" not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (float("nan"), "–"), (0.12345, "0.123"), (1, "1.000")],  # noqa: RUF001
)
def test_numbers(value, shown):
    assert page.number(value) == shown


def test_a_spread_is_shown_where_there_is_one():
    assert page.spread(0.15, 0.002) == "0.150 ± 0.002"
    assert page.spread(0.15, None) == "0.150"
    assert page.spread(None, None) == page.MINUS


def test_counts_have_one_order_and_no_zeros():
    assert page.counts({"failed": 1, "diverged": 0, "ok": 7}) == "7 ok, 1 failed"
    assert page.counts({}) == "none"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 min 00 s"), (59.6, "1 min 00 s"), (432, "7 min 12 s"), (3599, "59 min 59 s"),
     (3661, "1 h 01 min"), (90000, "25 h 00 min")],
)  # fmt: skip
def test_durations(seconds, shown):
    assert page.duration(seconds) == shown
