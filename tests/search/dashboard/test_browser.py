"""The page in a real browser: as a file, and live from the real server."""

import json
import re
import shutil
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest

from search.report import write_report
from tests.search.conftest import whole_search, write_experiment
from tests.search.dashboard.serving import serving
from tests.search.test_rejections import rejected, write_round

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

HEADINGS = ":is(h1, h2, h3, h4, h5, h6):visible"
ATTACK = "</script><script>window.hit=1</script><img src=x onerror='window.hit=2'>\u2028%{x}"


class Watch:
    """Opens pages that may not complain, nor ask for anything but their own file or server."""

    def __init__(self, browser):
        self.browser, self.contexts, self.complaints, self.strangers = browser, [], [], []

    def open(self, address, width=1280, height=900, clock=False):
        context = self.browser.new_context(viewport={"width": width, "height": height})
        self.contexts.append(context)
        page = context.new_page()
        if clock:
            page.clock.install()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self.note(request.url, address))
        page.goto(address)
        page.wait_for_selector("h1:visible")
        return page

    def note(self, url, address):
        origin = "/".join(address.split("/")[:3])
        served = origin.startswith("http") and url.startswith(f"{origin}/")
        if not (served or url.split("#")[0] == address or url.startswith("data:")):
            self.strangers.append(url)

    def close(self):
        for context in self.contexts:
            context.close()
        assert self.complaints == [] and self.strangers == []


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def watch(chromium):
    watch = Watch(chromium)
    yield watch
    watch.close()


@pytest.fixture(scope="module")
def report(chromium, tmp_path_factory):
    """The report of a whole search, open: loading the library is what takes time here."""
    records = whole_search()
    records[8]["skipped_images"] = {"0042.jpg": "cannot identify image file"}
    records[20] |= {"status": "stopped", "error": "0.01 half way"}
    settings = {"preflight": {"enabled": True}, "early_stop": {"at": 0.5, "images": 8}}
    path = write_experiment(tmp_path_factory.mktemp("report") / "shapes", records, **settings)
    write_round(path, 0, rejected(0), rejected(3, "gradient", waived=True))
    (path / records[0]["trial_dir"]).mkdir()
    (path / "best.yaml").write_text("{}")
    watch = Watch(chromium)
    yield watch.open(write_report(path).absolute().as_uri())
    watch.close()


@contextmanager
def live(*experiments, **settings):
    with serving(*experiments, **settings) as port:
        yield f"http://127.0.0.1:{port}/"


def overflow(page):
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def texts(page, selector):
    return [text.strip() for text in page.locator(selector).all_text_contents()]


def column(page, number):
    return texts(page, f"#trials tbody tr > :nth-child({number})")


def running(path, **fields):
    now = time.time()
    status = {
        "state": "running", "updated": now, "started": now - 60, "host": "box", "slots": 2,
        "nodes": [{"address": "10.0.0.2", "cpus": 4, "gpus": 1, "alive": True},
                  {"address": "10.0.0.3", "cpus": 4, "gpus": 1, "alive": False}],
        "total_trials": 36, "pending": 3, "left_seconds": 432,
        "running": [{"phase": "search", "round": 2, "slot": 6, "repeat": 0,
                     "started": now - 20, "folder": None}],
    }  # fmt: skip
    (path / "status.json").write_text(json.dumps(status | fields))


# --- as a file -----------------------------------------------------------------------------------


def test_the_report_shows_everything_by_itself(report):
    page = report
    words = " ".join(page.inner_text("main").split())
    for told in ("finished", "36 of 36 trials: 33 ok, 1 stopped, 1 diverged, 1 failed", "★ round",
                 "preflight · early stop · final race of 2", "won", ">99%",
                 "2 of 9 samples rejected before a trial (simulation 1, gradient 1); 1 tried all",
                 "1 of 24 samples stopped part of the way", "spreads by 0.0020",
                 "0.152 ± 0.002", "clearly beats the baseline Focal + GIoU", "out of memory",
                 "0042.jpg", "paploss train best.yaml", "7 min 12 s",
                 "ppo2: 3 rounds of 8 samples"):  # fmt: skip
        assert told in words
    # Landmarks, and headings that go down one level at a time.
    assert page.locator("header, main").count() == 2
    levels = [int(one.evaluate("h => h.tagName[1]")) for one in page.locator(HEADINGS).all()]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    # Every figure has a text, every table a caption, and scopes.
    plots = page.locator(".plot[role=img]")
    labels = [plots.nth(k).get_attribute("aria-label") for k in range(plots.count())]
    assert len(labels) == 1 + 5 + 3 and all(len(label) > 40 for label in labels)
    first = [r["reward"] for r in whole_search() if (r["phase"], r["round"]) == ("search", 0)]
    known = [reward for reward in first if reward is not None]
    assert f"Mean of the rounds: 0: {sum(known) / len(known):.3f}, 1: " in labels[0]
    assert page.locator("table:not(:has(caption))").count() == 0
    assert page.locator("th:not([scope])").count() == 0
    link = page.locator("#trials a").first.get_attribute("href")
    assert link == "baseline-0-0-0/train.log"


def test_the_slider_moves_the_curves(report):
    page = report
    mean = "() => document.querySelector('#curves .plot').data.at(-2).y"
    assert page.inner_text("#curves output") == "policy after round 2, the latest"
    latest = page.evaluate(mean)
    page.focus("#curves input[type=range]")
    page.keyboard.press("Home")
    assert page.inner_text("#curves output") == "policy of the start"
    first = page.evaluate(mean)
    # The search starts at the identity, by stick breaking k / 5.
    assert first == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1], abs=1e-3) and first != latest
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#curves output") == "policy after round 0"
    label = page.locator("#curves .plot").first.get_attribute("aria-label")
    assert "Mean of the policy after round 0: through (0.00, 0.00), (" in label


def test_play_goes_to_the_end_unless_less_motion_is_asked_for(report):
    page = report
    page.focus("#curves input[type=range]")
    page.keyboard.press("End")
    page.click("#curves button")
    assert page.inner_text("#curves button") == "Pause"
    assert page.inner_text("#curves output") == "policy of the start"
    page.wait_for_selector("#curves button:text-is('Play')")
    assert page.inner_text("#curves output") == "policy after round 2, the latest"
    page.emulate_media(reduced_motion="reduce")
    page.wait_for_selector("#curves button", state="hidden")
    assert page.is_visible("#curves input")


def test_trials_are_sorted_by_keyboard_and_filtered(report):
    page = report
    header = page.locator("#trials th:has(button:text-is('reward'))")
    assert header.get_attribute("aria-sort") is None
    page.focus("#trials th button:text-is('reward')")
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    values = column(page, 3)
    assert values[0] == "0.0000" and values[-1] == "–"  # noqa: RUF001 - without a reward: last
    assert [float(v) for v in values[:-1]] == sorted(float(v) for v in values[:-1])
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") == "descending"
    values = column(page, 3)
    assert values[-1] == "–"  # noqa: RUF001
    assert [float(v) for v in values[:-1]] == sorted(map(float, values[:-1]), reverse=True)
    page.select_option("#trials select >> nth=0", "final")
    assert len(column(page, 1)) == 6 and page.inner_text("#trials .count") == "6 of 36 trials"
    page.select_option("#trials select >> nth=0", "")
    page.select_option("#trials select >> nth=1", "failed")
    assert column(page, 1) == ["round 0 slot 3"]


def test_dark_and_light(report):
    page = report
    page.emulate_media(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "document.querySelector('#rewards .plot').layout.font.color"
    assert page.evaluate(ground) == "rgb(15, 20, 27)" and page.evaluate(ink) == "#e8edf4"
    page.click("#theme")
    assert page.evaluate(ground) == "rgb(244, 246, 249)" and page.evaluate(ink) == "#1c2531"
    page.reload()
    page.wait_for_selector("h1:visible")
    assert page.evaluate(ground) == "rgb(244, 246, 249)"
    page.click("#theme")
    assert page.evaluate(ground) == "rgb(15, 20, 27)"


def test_a_phone_scrolls_in_one_direction(watch, two_heads):
    page = watch.open(write_report(two_heads).absolute().as_uri(), width=360, height=780)
    assert overflow(page) <= 0
    page.click("#rewards summary")
    page.click("#curves summary")
    assert overflow(page) <= 0
    # And what is wider than the screen can be scrolled by keyboard.
    wide = page.locator(".scroll").all()
    assert wide and all(one.get_attribute("tabindex") == "0" for one in wide)
    # Of two heads, each has its curves.
    assert texts(page, "#curves h3") == ["rpn", "rcnn"]
    assert page.locator("#curves .plot:has(svg.main-svg)").count() == 10
    label = page.locator("#curves .plot").nth(5).get_attribute("aria-label")
    assert label.startswith("Curve H1 of rcnn, counts all")


def test_a_report_of_a_search_that_was_cut_short(watch, experiment, searched):
    """It is written before the last status is: what runs then will not go on."""
    path = experiment(searched[:20])
    running(path)
    page = watch.open(write_report(path).absolute().as_uri())
    assert page.inner_text(".pill") == "not finished when this page was written"
    assert "paploss resume goes on" in page.inner_text(".advice")
    assert page.is_hidden(".runs") and "left" not in page.inner_text(".done")


def test_what_comes_from_files_is_shown_and_runs_nothing(watch, experiment, searched):
    for one in searched:
        one["label"] = ATTACK + one["label"]
        one["error"] = one["fingerprint"] = one["node"] = ATTACK
        one["skipped_images"] = {ATTACK: ATTACK}
        if one["control_points"]:
            one["control_points"][ATTACK] = one["control_points"].pop("H1")
    path = experiment(searched, name=ATTACK, detector={"name": ATTACK}, reward=ATTACK)
    running(path, host=ATTACK, state="stopped", problem=ATTACK)
    (path / "events.jsonl").write_text(json.dumps({"time": 1, "text": ATTACK}))
    folder = path / searched[0]["trial_dir"]
    folder.mkdir()
    (folder / "train.log").write_text(ATTACK)
    with live(path, path) as address:
        file = watch.open(write_report(path).absolute().as_uri())
        page = watch.open(address)  # the comparison
        for shown in (file, page):
            check_harmless(shown)
        # In a figure's hover, too, which plotly makes of a little HTML.
        file.evaluate("document.getElementById('rewards').scrollIntoView()")
        file.evaluate("Plotly.Fx.hover(document.querySelector('#rewards .plot'), "
                      "[{curveNumber: 2, pointNumber: 0}])")  # fmt: skip
        assert ATTACK[:20] in file.locator("#rewards .hoverlayer").text_content()
        page.click("#views button >> nth=1")
        check_harmless(page)
        page.goto(f"{address}experiments/0/trials/{folder.name}/train.log")
        assert page.inner_text("body").startswith("</script><script>window.hit=1")
        assert file.evaluate("window.hit") is page.evaluate("window.hit") is None


def check_harmless(page):
    page.wait_for_selector(".plot:visible svg.main-svg")
    assert page.evaluate("window.hit") is None
    assert page.locator("main img, main script").count() == 0
    assert ATTACK[:30] in page.inner_text("main")


# --- live ----------------------------------------------------------------------------------------


def test_a_running_search_is_followed_without_a_reload(watch, experiment, searched):
    path = experiment(searched[:20])
    running(path)
    with live(path) as address:
        page = watch.open(address, clock=True)
        assert page.inner_text(".pill") == "running"
        assert page.inner_text(".done") == (
            "20 of 36 trials: 18 ok, 1 diverged, 1 failed, about 7 min 12 s left"
        )
        assert "1, 1 lost: 4 CPUs, 1 GPU" in page.inner_text("dl")
        assert "round 2 slot 6" in page.inner_text(".runs")
        # What a reader has done to the page stays as it is.
        page.evaluate("window.same = true")
        page.click("#curves summary")
        page.focus("#curves input[type=range]")
        page.keyboard.press("Home")
        page.click("#trials th button:text-is('reward')")
        page.select_option("#trials select >> nth=0", "search")
        top = "Math.round(document.getElementById('curves').getBoundingClientRect().top)"
        page.evaluate("document.getElementById('curves').scrollIntoView()")
        page.evaluate("window.scrollBy(0, 30)")
        stood = page.evaluate(top)
        for one in searched[20:]:
            key = "{phase}-{round:03d}-{slot:02d}-{repeat}".format(**one)
            (path / "journal" / f"{key}.json").write_text(json.dumps(one))
        (path / "events.jsonl").write_text('{"time": 5, "text": "a machine is lost"}\n')
        page.clock.run_for(3100)
        page.wait_for_selector(".done:has-text('36 of 36')")
        page.wait_for_selector("#standings .strong")  # above it, the page has grown
        assert page.evaluate("window.same") and abs(page.evaluate(top) - stood) <= 1
        assert page.inner_text("#curves output") == "policy of the start"
        assert page.locator("#curves details[open]").count() == 1
        assert page.locator("#trials [aria-sort=ascending]").count() == 1
        assert len(column(page, 1)) == 24
        assert "a machine is lost" in page.inner_text("#events")
        assert "36 of 36" in page.text_content("[role=status]")


def test_how_a_search_stands(watch, experiment, searched):
    path = experiment(searched[:20])
    with live(path) as address:
        page = watch.open(address, clock=True)
        assert page.inner_text(".pill") == "not finished"
        assert "no status" in page.inner_text(".advice")
        for state, told, advised in (
            ({}, "running", ""),
            ({"updated": time.time() - 190}, "no sign of life for 3 minutes", "paploss resume"),
            ({"state": "interrupted"}, "interrupted", "paploss resume goes on"),
            (
                {"state": "stopped", "problem": "no machine is left"},
                "stopped",
                "no machine is left",
            ),
            ({"state": "finished", "updated": 9000}, "finished", ""),
        ):
            running(path, **state)
            page.clock.run_for(3100)
            page.wait_for_selector(f".pill:text-is('{told}')")
            assert advised in page.inner_text(".advice") if advised else page.is_hidden(".advice")
        running(path)
        page.clock.run_for(3100)
        page.wait_for_selector(".pill:text-is('running')")
        # The driver dies, and nothing changes but the time; the server's clock would set it right.
        page.route("**/status.json*", lambda request: request.fulfill(status=304))
        page.clock.run_for(200_000)
        page.wait_for_selector(".pill:has-text('no sign of life')")


def test_the_page_outlives_its_server(watch, experiment, searched):
    path = experiment(searched[:20])
    with live(path) as address:
        page = watch.open(address, clock=True)
        assert page.is_hidden("#trouble")
    page.clock.run_for(3100)
    page.wait_for_selector("#trouble:visible")
    assert "does not answer" in page.inner_text("#trouble")
    assert "20 of 36" in page.inner_text(".done")  # what it said last stays
    with live(path, port=int(address.split(":")[2].strip("/"))):
        page.clock.run_for(3100)
        page.wait_for_selector("#trouble", state="hidden")
    refused = [text for text in watch.complaints if "ERR_CONNECTION_REFUSED" in text]
    for text in refused:  # the browser's own words on it
        watch.complaints.remove(text)


def test_experiments_are_compared(watch, tmp_path, experiment, searched):
    budget = {"rounds": 3, "samples": 8}
    one = experiment(searched, algorithm={"type": "ppo2", **budget}).rename(tmp_path / "one")
    other = experiment(searched[:14], name="other", algorithm={"type": "random", **budget})
    with live(one, other) as address:
        page = watch.open(address)
        page.wait_for_selector("#compared-rounds .plot svg.main-svg")
        assert page.inner_text("h1:visible") == "Comparison"
        assert texts(page, "#views button") == ["Comparison", "shapes", "other"]
        page.wait_for_selector("#compared-hours .plot[aria-label*='other: ']")
        label = page.locator("#compared-hours .plot").get_attribute("aria-label")
        # 24 search trials of 12 s on one CPU are 0.08 hours; 8 of the other's 14 are search trials.
        assert (
            "after 24 trials and 0.08 hours" in label and "after 8 trials and 0.03 hours" in label
        )
        assert texts(page, "#differences tbody tr") == ["algorithm.typeppo2random"]
        rows = texts(page, "#results tbody tr")
        assert rows[0].startswith("shapesfinishedAP36 of 36") and "0.152 ± 0.002" in rows[0]
        assert rows[1].startswith("othernot finishedAP14 of 36")
        page.click("#views button:text-is('other')")
        assert page.inner_text("h1:visible") == "other"
        assert page.locator("#views [aria-current=page]").inner_text() == "other"
        page.reload()
        page.wait_for_selector("h1:visible")
        assert page.inner_text("h1:visible") == "other"
        page.set_viewport_size({"width": 360, "height": 780})
        page.click("#views button:text-is('Comparison')")
        figure = page.locator("#compared-rounds svg.main-svg").first
        playwright.expect(figure).to_have_attribute("width", re.compile(r"[123]\d\d"))
        assert overflow(page) <= 0
