"""A report as a reader meets it: in a real browser, which says what fails, what is asked for and what is seen."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.tuning.browser import complaints, needs_browser, open_browser, requests, set_scheme
from tests.tuning.report_runs import make_config, make_pictures, make_run, make_runs
from tuning.report import report

pytestmark = needs_browser

# Names that a page would run if it did not escape them; one also looks like mathematics to Matplotlib.
HOSTILE = "<img src=x onerror=window.hacked=1> $x_1$ & co"
SCRIPT = "</pre></script><script>window.hacked = 1</script>"
SECTIONS = [
    "overview",
    "curves",
    "regions",
    "profiles",
    "worlds",
    "pictures",
    "configuration",
    "reading",
    "reproducing",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on three agents, one of them with a hostile name, another not judged."""
    folder = tmp_path_factory.mktemp("reported")
    runs = make_runs(folder / "runs", {HOSTILE: "crssm", "hidden": "hidden"})
    make_run(runs / "young" / "seed0", make_config(context="concat", regions={SCRIPT: [{"gravity": 9.8}]}), steps=1000)
    make_pictures(runs / "hidden" / "seed0")
    return report([runs], folder / "report.html").resolve()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def opened(driver: Chrome, page: Path) -> Chrome:
    set_scheme(driver, "light")
    requests(driver), complaints(driver)
    driver.get(page.as_uri())
    return driver


def find(driver: Chrome, selector: str) -> list[WebElement]:
    return driver.find_elements(By.CSS_SELECTOR, selector)


def test_nothing_fails_and_nothing_is_asked_of_a_server(opened: Chrome, page: Path) -> None:
    for summary in find(opened, "summary"):
        opened.execute_script("arguments[0].parentElement.open = true", summary)
    assert complaints(opened) == []
    asked = requests(opened)
    assert asked.count(page.as_uri()) == 1
    assert {address for address in asked if address != page.as_uri()} <= {"data:image/png", "data:image/gif", "data:,"}
    assert opened.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []


def test_a_server_that_is_asked_for_would_be_noticed(driver: Chrome, tmp_path: Path) -> None:
    """The two logs that the test above reads do tell what happens."""
    file = tmp_path / "bad.html"
    file.write_text("<img src='http://127.0.0.1:9/x.png'><script>nothing.here()</script>")
    requests(driver), complaints(driver)
    driver.get(file.as_uri())
    assert "http://127.0.0.1:9/x.png" in requests(driver)
    assert any("nothing is not defined" in entry["message"] for entry in complaints(driver))


def test_hostile_names_are_shown_and_not_run(opened: Chrome) -> None:
    assert opened.execute_script("return window.hacked === undefined")
    assert HOSTILE in find(opened, "h1")[0].text
    assert HOSTILE in find(opened, "#overview tbody th")[0].text
    opened.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert any(f"regions: {{{SCRIPT}: " in code.text for code in find(opened, "#configuration pre"))


def test_every_section_is_there_and_in_the_contents(opened: Chrome) -> None:
    assert [section.get_attribute("id") for section in find(opened, "main > section")] == SECTIONS
    assert [link.get_attribute("href").split("#")[1] for link in find(opened, "nav a")] == SECTIONS
    for section in find(opened, "main > section"):
        assert section.size["height"] > 50 and section.find_element(By.TAG_NAME, "h2").text
    last = find(opened, "nav a")[-1]
    last.click()
    assert opened.execute_script("return location.hash") == "#reproducing"
    ids = opened.execute_script("return [...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))


def test_pictures_are_decoded_and_described(opened: Chrome) -> None:
    opened.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    pictures = find(opened, "img")
    assert len(pictures) == 3
    for picture in pictures:
        width = opened.execute_async_script(
            "const [image, done] = arguments; image.decode().then(() => done(image.naturalWidth), () => done(0))",
            picture,
        )
        assert width == 40 and picture.get_attribute("alt")


def test_figures_are_drawn_where_they_are_and_described(opened: Chrome) -> None:
    figures = find(opened, "figure > svg[role=img]")
    assert len(figures) >= 6
    for figure in figures:
        assert figure.size["width"] > 100 and figure.size["height"] > 30
        assert figure.get_attribute("aria-label")
    # Colors and letters of the page, not of Matplotlib.
    text = find(opened, "#curves figure svg text")[0]
    assert text.value_of_css_property("font-family") == find(opened, "body")[0].value_of_css_property("font-family")


def test_a_click_sorts_and_the_next_one_turns_it_round(opened: Chrome) -> None:
    table = find(opened, "#overview table")[1]  # of agents, also those that were not judged

    def column(place: int) -> list[str]:
        return [
            row.find_elements(By.CSS_SELECTOR, "th, td")[place].text
            for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
        ]

    titles = table.find_elements(By.CSS_SELECTOR, "thead th")
    assert column(0) == [HOSTILE, "hidden", "young"]
    titles[0].find_element(By.TAG_NAME, "button").click()
    assert titles[0].get_attribute("aria-sort") == "ascending"
    first = column(0)
    titles[0].find_element(By.TAG_NAME, "button").click()
    assert titles[0].get_attribute("aria-sort") == "descending" and column(0) == first[::-1]
    steps = next(place for place, title in enumerate(titles) if "environment steps" in title.text)
    titles[steps].find_element(By.TAG_NAME, "button").click()  # numbers: the most first
    assert titles[0].get_attribute("aria-sort") is None and titles[steps].get_attribute("aria-sort") == "descending"
    assert column(0)[-1] == "young" and column(steps)[-1].startswith("1,000")


def test_light_and_dark(opened: Chrome) -> None:
    def seen(selector: str, name: str) -> str:
        return find(opened, selector)[0].value_of_css_property(name)

    def lightness(color: str) -> float:
        return sum(map(float, color.split("(")[1].rstrip(")").split(",")[:3])) / 3

    found = {}
    for scheme in ("light", "dark"):
        set_scheme(opened, scheme)
        found[scheme] = {
            "paper": seen("body", "background-color"),
            "ink": seen("body", "color"),
            "axis": seen("#curves figure svg text", "fill"),
        }
    assert lightness(found["light"]["paper"]) > 240 > 60 > lightness(found["light"]["ink"])
    assert lightness(found["dark"]["paper"]) < 60 < 200 < lightness(found["dark"]["ink"])
    for scheme in found.values():
        assert lightness(scheme["axis"]) == pytest.approx(lightness(scheme["ink"]))


@pytest.mark.parametrize("width", [360, 1600])
def test_it_fits_narrow_and_wide_screens(opened: Chrome, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_prints(opened: Chrome) -> None:
    set_scheme(opened, "dark")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert find(opened, "body")[0].value_of_css_property("color").startswith("rgba(26, 29, 33")  # ink on white
        assert not find(opened, "nav")[0].is_displayed()
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
