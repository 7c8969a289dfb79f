"""The live page in a real browser."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from live_results import CLASSES, made
from webdriver import CHROMIUM, DRIVER, MISSING, Browser

from edgeunip.frame import Alarm, Region, State
from edgeunip.health import Board, CameraStatus, SinkStatus, Totals
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.web.sink import WebSink

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
def board():
    return Board()


@pytest.fixture
def sink(browser, board):
    sink = WebSink(0, Setting(CLASSES, board=board))
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
        assert 5 < float(browser.run("document.getElementById('fps').textContent")) < 21
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
    assert browser.run("document.getElementById('chart').offsetHeight") == 0
    sink.write(made(seq=7, radiometry=None))
    browser.wait(STATE, lambda state: state == "live")
    point(browser, 5, 7)
    assert browser.run(READING) == "x 5, y 7: this camera gives no temperatures"
    show(browser, sink, made(seq=8, state=State.FFC))
    assert browser.run("getComputedStyle(document.querySelector('#legend td:last-child')).display") != "none"


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
    again = WebSink(int(sink.url.rsplit(":", 1)[1].strip("/")), Setting(CLASSES))
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


# ---- temperatures


MOVE = (
    "(() => {{ const view = document.getElementById('view'), at = view.getBoundingClientRect();"
    " view.dispatchEvent(new PointerEvent('{kind}', {{ pointerType: 'mouse', bubbles: true,"
    " clientX: at.x + ({x} + 0.5) * at.width / 160, clientY: at.y + ({y} + 0.5) * at.height / 120 }})); }})()"
)
READING = "document.getElementById('reading').textContent"


def point(browser, x, y, kind="pointermove"):
    browser.run(MOVE.format(x=x, y=y, kind=kind))


def celsius(result):
    return result.frame.radiometry.celsius(result.frame.counts)


def test_the_cursor_reads_the_frames_own_temperature(browser, sink):
    result = made(seq=7)
    show(browser, sink, result)
    for x, y in ((120, 84), (0, 0), (159, 119), (45, 72)):
        point(browser, x, y)
        expected = f"x {x}, y {y}: {celsius(result)[y, x]:.1f} °C"
        assert browser.wait(READING, lambda text, expected=expected: text == expected) == expected
        assert browser.run("document.querySelector('.cross span').textContent") == f"{celsius(result)[y, x]:.1f} °C"
    point(browser, 0, 0, "pointerleave")
    assert browser.run(READING) == "Point at the picture to read its temperature"


def test_the_cursor_follows_the_stream(browser, sink):
    """The person walks under a cursor that stays: the temperature is always that of the frame shown."""
    show(browser, sink, made(seq=0))
    point(browser, 55, 72)
    seen = set()
    for seq in (0, 30, 60, 90):
        result = made(seq=seq)
        show(browser, sink, result)
        expected = f"x 55, y 72: {celsius(result)[72, 55]:.1f} °C"
        browser.wait(READING, lambda text, expected=expected: text == expected)
        seen.add(expected)
    assert len(seen) >= 2
    assert browser.run("document.getElementById('reading').dataset.seq") == "90"


def test_the_crosshair_moves_by_keyboard(browser, sink):
    result = made(seq=1)
    show(browser, sink, result)
    key = "document.getElementById('view').dispatchEvent(new KeyboardEvent('keydown', {{key: '{}', shiftKey: {}}}))"
    browser.run(key.format("ArrowRight", "false"))
    browser.wait(READING, lambda text: text == f"x 81, y 60: {celsius(result)[60, 81]:.1f} °C")
    browser.run(key.format("ArrowDown", "true"))
    browser.run(key.format("ArrowLeft", "false"))
    browser.wait(READING, lambda text: text == f"x 80, y 70: {celsius(result)[70, 80]:.1f} °C")
    browser.run(key.format("Escape", "false"))
    assert browser.run(READING).startswith("Point at")


def test_a_pinned_spot_stays_and_goes(browser, sink):
    result = made(seq=1)
    show(browser, sink, result)
    point(browser, 120, 84)
    press(browser, "s")
    point(browser, 10, 10)
    pin = "Array.from(document.querySelectorAll('.pin span'), (one) => one.textContent)"
    browser.wait(pin, lambda texts: texts == [f"{celsius(result)[84, 120]:.1f} °C"])
    point(browser, 121, 84)
    press(browser, "s")
    assert browser.run(pin) == []


def test_fahrenheit_everywhere(browser, sink):
    result = replace(made(seq=3), alarms=(Alarm("machine max > 55 C", "machine", 0, 59.0, "C", (5, 5)),))
    show(browser, sink, result)
    point(browser, 120, 84)
    press(browser, "u")
    try:
        hottest = result.classes["machine"].max_c * 1.8 + 32
        assert rows(browser)[2][4] == f"{hottest:.1f}"
        assert browser.run("Array.from(document.querySelectorAll('.unit'), (one) => one.textContent)") == ["°F", "°F"]
        expected = f"x 120, y 84: {celsius(result)[84, 120] * 1.8 + 32:.1f} °F"
        browser.wait(READING, lambda text: text == expected)
        assert browser.run("document.querySelector('.mark.alarm').innerText") == "machine 138.2 °F"
    finally:
        press(browser, "u")
    assert rows(browser)[2][4] == f"{result.classes['machine'].max_c:.1f}"


def test_while_the_shutter_is_closed_there_is_no_temperature_and_the_map_is_marked(browser, sink):
    show(browser, sink, made(seq=1))
    point(browser, 120, 84)
    browser.wait(READING, lambda text: text.endswith("°C"))
    assert browser.run("document.getElementById('held').offsetHeight") == 0
    show(browser, sink, replace(made(seq=2, state=State.FFC), held=True))
    browser.wait(READING, lambda text: text == "x 120, y 84: \N{EN DASH}")
    assert browser.run("document.getElementById('held').offsetHeight") > 0
    assert browser.run("document.getElementById('veil').innerText") == "FFC"


# ---- palettes, regions


def test_palettes_change_the_pixels_and_nothing_else(browser, sink):
    result = made(seq=4)
    show(browser, sink, result)
    gray = pixel(browser, 5, 115)[0]
    names = browser.run("Array.from(document.getElementById('palette').options, (one) => one.value)")
    assert names[:3] == ["white hot", "black hot", "ironbow"]
    assert len(names) >= 6
    seen = set()
    for name in names:
        assert browser.run("document.getElementById('palette').value") == name
        seen.add(tuple(pixel(browser, 5, 115)))
        if name == "black hot":
            assert pixel(browser, 5, 115)[:3] == pytest.approx([255 - gray] * 3, abs=1)
        if name == "ironbow":
            red, green, blue, _ = pixel(browser, 5, 115)
            assert blue > red > green
        press(browser, "l")
    assert len(seen) == len(names)
    assert pixel(browser, 5, 115) == [gray, gray, gray, 255]
    assert rows(browser)[1][1] == f"{100 * result.classes['person'].area:.1f} %"


def test_regions_have_numbers(browser, sink):
    result = made(seq=5)
    machine = Region("machine", 4, (104, 72, 32, 24), result.classes["machine"])
    off = Region("background", 0, (0, 0, 160, 120), result.classes["background"])
    show(browser, sink, replace(result, regions=(machine, off)))
    assert browser.run("document.querySelectorAll('.region').length") == 0
    press(browser, "r")
    try:
        box, text = browser.run(
            "(() => { const view = document.getElementById('view').getBoundingClientRect();"
            " const all = document.querySelectorAll('.region'), at = all[0].getBoundingClientRect();"
            " const part = (value, size) => Math.round(value / view.width * 160);"
            " return [[part(at.x - view.x), part(at.y - view.y), part(at.width), part(at.height), all.length],"
            " all[0].innerText]; })()"
        )
        assert box == [104, 72, 32, 24, 1]
        assert text == f"machine 4 {result.classes['machine'].max_c:.1f}°"
    finally:
        press(browser, "r")


def test_areas_of_interest_have_their_own_table(browser, sink):
    result = made(seq=6)
    areas = {"door": {"person": result.classes["person"], "machine": made_absent()}}
    show(browser, sink, replace(result, areas=areas))
    found = browser.run("Array.from(document.querySelectorAll('#areas tbody td'), (cell) => cell.innerText)")
    person = result.classes["person"]
    assert found == ["door", "person", f"{100 * person.area:.1f} %", f"{person.max_c:.1f}"]


def made_absent():
    return replace(made().classes["machine"], pixels=0, area=0.0)


# ---- alarms, history, health, cameras


def test_an_alarm_shows_is_acknowledged_and_ends(browser, sink):
    result = made(seq=1)
    machine = result.classes["machine"]
    alarm = Alarm("machine max > 55 C for 3 s", "hot machine", time.monotonic_ns(), machine.max_c, "C", machine.hotspot)
    show(browser, sink, replace(result, alarms=(alarm,)))
    assert browser.run("document.querySelector('.mark.alarm').innerText") == f"hot machine {machine.max_c:.1f} °C"
    assert browser.wait("document.getElementById('alarmed').innerText", timeout_s=4) == "1 ALARM"
    browser.wait("document.title", lambda title: title.startswith("ALARM"))
    raised = browser.run("document.querySelector('#raised li').innerText")
    assert raised.startswith(f"machine max > 55 C for 3 s\n{machine.max_c:.1f} °C · since ")
    browser.run("document.querySelector('#raised button').click()")
    assert browser.run("document.getElementById('alarmed').hidden")
    assert "acknowledged" in browser.run("document.querySelector('#raised li').innerText")
    sink.write(made(seq=2))
    past = browser.wait("document.querySelector('#past ul').textContent", timeout_s=4)
    assert past.startswith("machine max > 55 C for 3 s")
    assert browser.run("document.querySelector('#raised').innerText") == "None is raised."


def test_history_is_there_after_a_reload(browser, sink):
    base = made(seq=1)
    for back in range(500, 0, -1):
        if not 200 < back < 260:  # the camera was away for a minute
            sink.write(replace(base, done_ns=base.done_ns - back * 10**9))
    show(browser, sink, made(seq=2))
    browser.open(sink.url)
    drawn = browser.wait("Number(document.getElementById('chart').dataset.samples)", lambda n: n > 400, timeout_s=4)
    assert 440 <= drawn <= 443
    browser.wait("document.getElementById('seq').textContent", lambda text: text == "2")
    label = browser.wait("document.getElementById('chart').getAttribute('aria-label')", lambda text: "person" in text)
    hottest = base.classes["machine"].max_c
    assert f"machine {hottest:.1f} to {hottest:.1f} °C" in label
    assert "background" not in label  # it is switched off
    columns = browser.run(
        "(() => { const c = document.getElementById('chart'), pen = c.getContext('2d'), found = [];"
        " for (let part = 0; part < 100; part += 1) { const x = Math.floor(44 + (c.width - 56) * (part + 0.5) / 100);"
        " const d = pen.getImageData(x, 0, 1, c.height).data; let hit = 0;"
        " for (let at = 0; at < d.length; at += 4) if (d[at] > 200 && d[at + 2] < 120 && d[at + 3] > 128) hit = 1;"
        " found.push(hit); } return found; })()"
    )
    assert sum(columns[:16]) == 0  # ten minutes ago there was nothing
    assert sum(columns[19:55]) > 30
    assert sum(columns[59:65]) == 0  # the gap
    assert sum(columns[69:99]) > 25


def test_the_chart_can_show_the_mean(browser, sink):
    base = made(seq=1)
    for back in range(5, 0, -1):
        sink.write(replace(base, done_ns=base.done_ns - back * 10**9))
    browser.open(sink.url)
    label = "document.getElementById('chart').getAttribute('aria-label')"
    browser.wait(label, lambda text: f"{base.classes['machine'].max_c:.1f}" in text)
    browser.run("document.getElementById('mean').click()")
    assert f"machine {base.classes['machine'].mean_c:.1f} to" in browser.run(label)
    browser.run("document.getElementById('mean').click()")


def test_a_lost_camera_and_a_stopped_sink_are_told(browser, sink, board):
    sinks = (SinkStatus("jsonl:/full", False, "No space left on device.", 10, 3, 1),)
    lost = CameraStatus(State.OFFLINE, "missing", "/dev/video0 is not there.", time.monotonic_ns(), 4, {"missing": 2})
    board.put("", status=replace(lost, state=State.LIVE, reason="frame"), totals=Totals(sinks=sinks))
    show(browser, sink, made(seq=1))
    text = browser.wait("document.getElementById('health').innerText", lambda text: "jsonl:/full" in text)
    assert "STOPPED. No space left on device. 10 written, 3 dropped, failed 1 times" in text
    assert "missing 2; opened 4 times" in text
    assert browser.run("document.querySelector('#health .failed').innerText").startswith("jsonl:/full")
    board.put("", status=lost)
    browser.wait(STATE, lambda state: state == "offline")
    assert browser.run("document.getElementById('note').textContent") == "/dev/video0 is not there."
    assert browser.run("document.getElementById('veil').innerText").startswith("OFFLINE ")
    point(browser, 5, 5)
    assert browser.run(READING) == "x 5, y 5: \N{EN DASH}"


def test_one_camera_after_the_other(browser):
    setting = Setting(CLASSES, ("hall", "gate"))
    sink = WebSink(0, setting)
    sink.write(replace(made(seq=11), camera="hall"))
    sink.write(replace(made(seq=22, height=90, width=90), camera="gate"))
    browser.open(sink.url)
    seq = "document.getElementById('seq').textContent"
    browser.wait(seq, lambda text: text == "11")
    options = "Array.from(document.getElementById('cameras').options, (one) => one.text.split(' · ').pop())"
    browser.wait(options, lambda names: names == ["hall", "gate"])
    choose = (
        "(() => { const s = document.getElementById('cameras'); s.value = 1; s.dispatchEvent(new Event('change'));"
        f" return [{seq}, pixel]; }})()"
    ).replace("pixel", "document.getElementById('picture').getContext('2d').getImageData(5, 115, 1, 1).data[3]")
    assert browser.run(choose) == ["\N{EN DASH}", 0]  # at once nothing is left of the other camera
    browser.wait(seq, lambda text: text == "22")
    assert browser.run("document.getElementById('picture').width") == 90
    browser.open(sink.url + "#1")
    browser.wait(seq, lambda text: text == "22")
    sink.close()


def test_the_login_form_lets_in(browser):
    sink = WebSink(0, Setting(CLASSES), token="t" * 43)
    sink.write(made(seq=5))
    browser.open(sink.url)
    submit = (
        "(() => {{ document.getElementById('token').value = '{}'; document.querySelector('form').requestSubmit(); }})()"
    )
    browser.run(submit.format("wrong"))
    browser.wait("document.querySelector('[role=alert]').innerText", lambda text: text == "That is not the token.")
    browser.run(submit.format("t" * 43))
    browser.wait("document.getElementById('seq')?.textContent", lambda text: text == "5")
    assert browser.run("location.href") == sink.url
    assert browser.run("document.cookie") == ""  # no script can read it
    sink.close()
    browser.console()  # 401 is told there
