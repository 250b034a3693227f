"""The page in Chromium: the whole path, text that would like to be more, and an accessibility scan.

Needs `pip install 'llm-trsr[browser]'` and a Chromium on the PATH; run with `-m browser`.
"""

import json
import re
import shutil

import pytest

from tests.test_space import CANDIDATES, HISTORY, NASTY
from trsr.cli.demo import demo

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
WIDTHS = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
WAIT = 60_000  # milliseconds
sync_api.expect.set_options(timeout=WAIT)


@pytest.fixture(scope="module")
def url():
    page = demo(prevent_thread_lock=True, quiet=True)
    yield page.local_url
    page.close()


@pytest.fixture(scope="module")
def catalogue_url(quickstarted, retriever):
    page = demo(quickstarted[0] / "runs" / "recurrent", retriever, prevent_thread_lock=True, quiet=True)
    yield page.local_url
    page.close()


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, url):
    """Opens the page; what its console complains about, and what it asks of other machines, fails the test."""
    complaints, contexts = [], []

    def open_page(screen="desktop", scheme="light", url=url):
        context = chromium.new_context(viewport=WIDTHS[screen], color_scheme=scheme)
        context.set_default_timeout(WAIT)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith(("http", "ws"))
                and "127.0.0.1" not in asked.url
                and complaints.append(f"asked {asked.url}")
            ),
        )
        page.goto(url)
        page.get_by_role("button", name="Summarise").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def press(page, name, said):
    """Press a button by the keyboard alone and wait for what the page says then."""
    button = page.get_by_role("button", name=name, exact=True)
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text=re.compile(said)).wait_for()


def whole_path(page):
    page.get_by_label("Sample user").click()
    page.get_by_role("option").nth(1).click()
    sync_api.expect(page.get_by_label("Candidates")).to_have_value(re.compile(r"(.+\n){20}.+"))
    press(page, "Summarise", r"(\d+) of \1 summaries written")
    summary = page.get_by_label("Summary (you can edit")
    sync_api.expect(summary).to_have_value(re.compile("genre: "))
    summary.fill("genre: chess lore x9")
    press(page, "Rank", "21 candidates ranked")
    sync_api.expect(page.get_by_text("actual choice")).to_have_count(1)
    sync_api.expect(page.get_by_label("Candidate", exact=True)).to_have_value(re.compile("^1. title: "))
    press(page, "Leave out one part at a time", "with the full prompt")
    sync_api.expect(page.get_by_text("Without the summary")).to_be_visible()
    press(page, "Compare speed with and without a shared prefix", "times as fast")
    sync_api.expect(summary).to_have_value("genre: chess lore x9")


@pytest.mark.parametrize(("screen", "scheme"), [("desktop", "light"), ("phone", "dark"), ("phone", "light")])
def test_the_whole_path(visit, screen, scheme):
    page = visit(screen, scheme)
    whole_path(page)
    check_layout(page, screen)


def check_layout(page, screen):
    """Nothing is wider than the screen, and nothing hard to read or to use."""
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[screen]["width"]
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in grave] == []


def test_text_stays_text(visit):
    page = visit()
    page.get_by_label("History, oldest first").fill(f"{NASTY}\n{HISTORY}")
    page.get_by_label("Candidates").fill(f"{NASTY}\n{CANDIDATES}")
    press(page, "Summarise", r"(\d+) of \1 summaries written")
    page.get_by_label("Summary (you can edit").fill(NASTY)
    press(page, "Rank", "3 candidates ranked")
    press(page, "Leave out one part at a time", "with the full prompt")
    page.get_by_label("Candidate", exact=True).click()
    page.get_by_role("option").nth(2).wait_for()
    assert page.locator("img[src=x]").count() == 0
    assert page.locator(".bars").get_by_text("`${alert(2)}` {{this}}").count() > 0
    assert page.locator(".bars").get_by_text("**bold**").count() > 0


def test_mistakes_are_told_as_text(visit):
    page = visit()
    page.get_by_label("Candidates").fill("")
    page.get_by_role("button", name="Rank", exact=True).click()
    page.get_by_text("Write at least one candidate").wait_for()
    page.get_by_label("Candidates").fill("x" * 1001)
    page.get_by_role("button", name="Rank", exact=True).click()
    page.get_by_text("at most 1000 are taken here").wait_for()


def test_the_other_method_and_new_candidates(visit):
    page = visit()
    page.get_by_label("History, oldest first").fill(json.dumps(HISTORY.splitlines()))
    press(page, "Summarise", r"(\d+) of \1 summaries written")
    before = page.get_by_label("Candidates").input_value()
    page.get_by_role("button", name="Draw random candidates").click()
    sync_api.expect(page.get_by_label("Candidates")).not_to_have_value(before)
    page.get_by_label("hierarchical").check()
    press(page, "Rank", "10 candidates ranked")


@pytest.mark.parametrize(
    ("screen", "scheme"), [("desktop", "light"), ("desktop", "dark"), ("phone", "dark"), ("phone", "light")]
)
def test_recommend_edit_the_summary_and_watch_the_list_move(visit, catalogue_url, screen, scheme):
    page = visit(screen, scheme, catalogue_url)
    page.get_by_label("Sample user").click()
    page.get_by_role("option").nth(1).click()
    sync_api.expect(page.get_by_label("Candidates")).to_have_value(re.compile(r"(.+\n){20}.+"))
    press(page, "Recommend", r"^50 items of a catalogue of [\d,]+ ranked")
    for title in ("Both stages", "Language model alone", "First stage alone"):
        sync_api.expect(page.get_by_role("heading", name=re.compile(title))).to_be_visible()
    sync_api.expect(page.locator(".ranked li")).to_have_count(30)
    sync_api.expect(page.locator(".moved")).to_have_count(0)
    page.get_by_label("Summary (you can edit").fill("genre: chess lore x9")
    press(page, "Recommend", "compared with the lists before")
    assert page.locator(".lists .card").nth(1).locator(".moved").count() > 0
    assert page.locator(".lists .card").nth(2).locator(".moved").count() == 0
    page.get_by_role("button", name="Take the recommendations").click()
    sync_api.expect(page.get_by_label("Candidates")).to_have_value(re.compile(r"^(.+\n){9}.+$"))
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("First stage alone, without").check()
    page.get_by_label("Leave out").fill(f"{NASTY}")
    press(page, "Recommend", r"^50 items of a catalogue of [\d,]+ ranked in [\d. ms]+\.$")
    sync_api.expect(page.locator(".ranked li")).to_have_count(10)
    sync_api.expect(page.get_by_label("Summary (you can edit")).to_have_value("genre: chess lore x9")
    check_layout(page, screen)


def test_lists_show_text_as_text(visit, catalogue_url):
    page = visit(url=catalogue_url)
    page.get_by_label("History, oldest first").fill(NASTY)
    page.get_by_label("Summary (you can edit").fill(NASTY)
    press(page, "Recommend", r"^50 items of a catalogue")
    sync_api.expect(page.get_by_text("1 item of the history not in the catalogue")).to_be_visible()
    assert page.locator("img[src=x]").count() == 0
