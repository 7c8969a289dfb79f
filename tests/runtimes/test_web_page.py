"""The live page in a real browser."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from live_results import CLASSES, made
from webdriver import CHROMIUM, DRIVER, MISSING, Browser

from edgeunip.frame import State
from edgeunip.runtimes.web import WebSink

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)

STATE = "document.body.dataset.state"
PIXELS = (
    "(() => { const c = document.getElementById('picture');"
    " return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data); })()"
)


@pytest.fixture(scope="module")
def browser():
    with Browser(1280, 800) as browser:
        yield browser


@pytest.fixture
def sink(browser):
    sink = WebSink(0, CLASSES)
    browser.open(sink.url)
    yield sink
    sink.close()


@contextmanager
def streaming(sink):
    """Frames at 20 a second until the block ends."""
    stop = threading.Event()

    def run():
        seq = 0
        while not stop.wait(0.05):
            sink.write(made(seq := seq + 1))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def pixel(browser, x, y):
    return browser.run(
        f"Array.from(document.getElementById('picture').getContext('2d').getImageData({x},{y},1,1).data)"
    )


def rows(browser):
    return browser.run(
        "Array.from(document.querySelectorAll('#legend tr'), (row) =>"
        " Array.from(row.cells, (cell) => cell.innerText.trim()))"
    )


def press(browser, key):
    browser.run(f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))")


def show(browser, sink, result):
    sink.write(result)
    browser.wait("document.getElementById('seq').textContent", lambda text: text == str(result.frame.seq))


def test_picture_and_numbers_are_the_results(browser, sink):
    result = made(seq=12, dropped=4)
    show(browser, sink, result)
    data = browser.run(PIXELS)
    gray = [data[4 * (160 * y + x)] for y, x in ((5, 5), (5, 150), (115, 5))]
    expected = [int(result.picture[y, x]) for y, x in ((5, 5), (5, 150), (115, 5))]
    assert gray == pytest.approx(expected, abs=6)
    assert len(set(data)) > 50
    assert rows(browser) == [
        [name, f"{100 * one.area:.1f} %", f"{one.min_c:.1f}", f"{one.mean_c:.1f}", f"{one.max_c:.1f}"]
        for name, one in result.classes.items()
    ]
    numbers = browser.run("['seq', 'age', 'dropped'].map((id) => document.getElementById(id).textContent)")
    assert numbers == ["12", "42", "4"]
    assert browser.console() == []


def test_the_overlay_is_half_gray_half_colour(browser, sink):
    result = made(seq=2)
    show(browser, sink, result)
    x, y = 120, 84
    assert result.class_map[y, x] == 2
    gray = int(result.picture[y, x])
    expected = [(gray + colour) / 2 for colour in CLASSES.colours[2]]
    assert pixel(browser, x, y)[:3] == pytest.approx(expected, abs=6)


def test_a_class_can_be_switched_off_and_on(browser, sink):
    result = made(seq=3)
    show(browser, sink, result)
    x, y = 120, 84
    with_class = pixel(browser, x, y)
    browser.run("document.querySelectorAll('#legend input')[2].click()")
    red, green, blue, _ = pixel(browser, x, y)
    assert red == green == blue == pytest.approx(int(result.picture[y, x]), abs=6)
    assert browser.run("document.querySelectorAll('.mark').length") == 1
    press(browser, "3")
    assert pixel(browser, x, y) == with_class
    assert browser.run("document.querySelectorAll('.mark').length") == 2


def test_opacity_and_hot_spots_by_keyboard(browser, sink):
    result = made(seq=4)
    show(browser, sink, result)
    half = pixel(browser, 120, 84)
    for _ in range(6):
        press(browser, "o")
    assert browser.run("document.getElementById('share').textContent") == "0 %"
    assert len(set(pixel(browser, 120, 84)[:3])) == 1
    for _ in range(5):
        press(browser, "p")
    assert pixel(browser, 120, 84) == half
    press(browser, "h")
    assert browser.run("document.querySelectorAll('.mark').length") == 0
    press(browser, "h")


def test_a_hot_spot_stands_on_its_pixel(browser, sink):
    result = made(seq=5)
    show(browser, sink, result)
    x, y = result.classes["machine"].hotspot
    left, top, text = browser.run(
        "(() => { const view = document.getElementById('view').getBoundingClientRect();"
        " const mark = document.querySelectorAll('.mark')[1], at = mark.getBoundingClientRect();"
        " return [160 * (at.x - view.x) / view.width, 120 * (at.y - view.y) / view.height, mark.innerText]; })()"
    )
    assert (left, top) == pytest.approx((x + 0.5, y + 0.5), abs=0.05)
    assert text == f"{result.classes['machine'].max_c:.1f} °C"


def test_live_then_stale_then_live(browser, sink):
    assert browser.wait(STATE, lambda state: state == "waiting")
    with streaming(sink):
        browser.wait(STATE, lambda state: state == "live")
        time.sleep(2.5)
        assert browser.run(STATE) == "live"  # negative control: frames that come keep it live
        assert 15 < float(browser.run("document.getElementById('fps').textContent")) < 21
    stopped = time.monotonic()
    browser.wait(STATE, lambda state: state == "stale")
    assert 1.5 < time.monotonic() - stopped < 3.5
    badge, veil, fps = browser.run("['badge', 'veil', 'fps'].map((id) => document.getElementById(id).innerText)")
    assert (badge, fps) == ("STALE", "\N{EN DASH}")
    assert veil.startswith("STALE ")
    with streaming(sink):
        browser.wait(STATE, lambda state: state == "live")


def test_a_page_opened_late_is_stale_at_once(browser, sink):
    result = made(seq=1)
    sink.write(replace(result, done_ns=result.done_ns - 2_500_000_000))
    started = time.monotonic()
    browser.wait(STATE, lambda state: state == "stale")
    assert time.monotonic() - started < 1.5


def test_states_and_bare_counts(browser, sink):
    sink.write(made(seq=6, state=State.FFC, radiometry=None))
    browser.wait(STATE, lambda state: state == "ffc")
    assert browser.run("document.getElementById('note').textContent") == (
        "The camera calibrates itself; its shutter is closed."
    )
    assert [row[0] for row in rows(browser)] == list(CLASSES.names)
    assert browser.run("getComputedStyle(document.querySelector('#legend td:last-child')).display") == "none"


def test_the_size_may_change(browser, sink):
    show(browser, sink, made(seq=1))
    show(browser, sink, made(seq=2, height=96, width=96))
    assert browser.run("[document.getElementById('picture').width, document.getElementById('picture').height]") == [
        96,
        96,
    ]


def test_disconnected_then_back_on_the_same_port(browser, sink):
    show(browser, sink, made(seq=1))
    sink.close()
    browser.wait(STATE, lambda state: state == "disconnected")
    again = WebSink(int(sink.url.rsplit(":", 1)[1].strip("/")), CLASSES)
    again.write(made(seq=77))
    browser.wait("document.getElementById('seq').textContent", lambda text: text == "77")
    again.close()
    browser.console()  # the refused connections


def test_a_hidden_page_takes_no_frames(browser, sink):
    show(browser, sink, made(seq=1))
    hide = "Object.defineProperty(document, 'hidden', {{get: () => {}, configurable: true}})"
    tell = "document.dispatchEvent(new Event('visibilitychange'))"
    browser.run(f"[{hide.format('true')}, {tell}].length")
    browser.wait(STATE, lambda state: state == "disconnected")
    sink.write(made(seq=2))
    time.sleep(0.3)
    assert browser.run("document.getElementById('seq').textContent") == "1"
    browser.run(f"[{hide.format('false')}, {tell}].length")
    browser.wait("document.getElementById('seq').textContent", lambda text: text == "2")


def test_a_phone_shows_it_all_without_scrolling_sideways(sink):
    sink.write(made(seq=8))
    with Browser(390, 844, phone=True) as phone:
        phone.open(sink.url)
        phone.wait("document.getElementById('seq').textContent", lambda text: text == "8")
        assert phone.run("document.documentElement.scrollWidth") == 390
        assert phone.run("document.getElementById('view').getBoundingClientRect().width") == 390
        smallest = phone.run(
            "Math.min(...Array.from(document.querySelectorAll('td label, button'), (e) => e.offsetHeight))"
        )
        assert smallest >= 34
        assert phone.console() == []
