import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from live_results import CLASSES, LINEAR, made

from edgeunip.classes import Classes
from edgeunip.errors import UsageError
from edgeunip.frame import Frame, Result, State
from edgeunip.runtimes.analyse import Analyst, measure
from edgeunip.runtimes.scene import Scene, read_scene

WHOLE = """
[areas.gate]
polygon = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]
relative = true

[areas."left door"]
polygon = [[0, 0], [40, 0], [40, 100]]

[[rules]]
name = "overheated"
rule = "machine max > 55 C in gate for 300 ms"

[[rules]]
rule = 'person count > 5 in "left door"'

[regions]
smallest = 20
most = 10
patience = 3
"""


def read(tmp_path, text):
    path = tmp_path / "scene.toml"
    path.write_text(text)
    return read_scene(path, CLASSES)


def test_a_scene_file_is_read(tmp_path):
    scene = read(tmp_path, WHOLE)
    assert [(area.name, area.relative, len(area.polygon)) for area in scene.areas] == [
        ("gate", True, 4),
        ("left door", False, 3),
    ]
    assert [(rule.name, rule.area) for rule in scene.rules] == [("overheated", "gate"), ("rule 2", "left door")]
    assert (scene.smallest, scene.most, scene.patience) == (20, 10, 3)
    assert read(tmp_path, "") == Scene()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[rule]\n", r"unknown key rule in the file\. Did you mean rules\?"),
        ("[areas.gate]\npoligon = []\n", r"unknown key poligon in \[areas\.gate\]\. Did you mean polygon\?"),
        ("[areas.gate]\nrelative = true\n", r"an area needs a polygon: \[areas\.gate\]"),
        ("[areas.gate]\npolygon = 3\n", "areas.gate.polygon is a list"),
        ("[areas.gate]\npolygon = [[1, 2], [3]]\n", r"a corner is two numbers \[x, y\]"),
        ("[areas.gate]\npolygon = [[1, 2], [3, true]]\n", r"a corner is two numbers"),
        ("[areas.gate]\npolygon = [[1, 2], [3, 4]]\n", "this area cannot be: gate .*3 to 1000 corners"),
        ("[areas.gate]\npolygon = [[0, 0], [9, 9], [9, 0], [0, 9]]\n", "cross or touch"),
        ("[[rules]]\nrule = 'any count > 64'\n", "no more regions are counted than are kept: any count > 64"),
        ("[[rules]]\nrule = 'any count >= 6'\n[regions]\nmost = 5\n", r"Raise most under \[regions\], which is 5"),
        ("[areas.gate]\npolygon = [[0, 0], [nan, 0], [0, 9]]\n", "no finite number"),
        ("[areas.gate]\npolygon = [[0, 0], [9, 0], [0, 9]]\nrelative = 1\n", "relative is true or false"),
        ("areas = 3\n", "areas is a table"),
        ("[rules]\nname = 'x'\n", r"rules is a list.*Write \[\[rules\]\]"),
        ("[[rules]]\nname = 'x'\n", r"a rule needs its text: \[\[rules\]\] number 1"),
        ("[[rules]]\nrule = 'persn max > 3 C'\n", "no class is called 'persn': rule rule 1, character 1.*person"),
        ("[[rules]]\nrule = 'person max > 3 C in gate'\n", r"no area is called 'gate'.*no \[areas\] yet"),
        ("[[rules]]\nrule = 'person max > 3 C'\nfor = 3\n", r"unknown key for in \[\[rules\]\] number 1"),
        ("[[rules]]\nrule = 'person max > 3 C'\nname = ''\n", "a rule's name is a printable text"),
        (
            "[[rules]]\nname = 'a'\nrule = 'person max > 3 C'\n[[rules]]\nname = 'a'\nrule = 'person max > 4 C'\n",
            "two rules have the same name: a",
        ),
        ("[regions]\nsmallest = 0\n", "smallest is a whole number from 1"),
        ("[regions]\nmost = 1.5\n", r"most is a whole number from 1 to 1000 \(1.5\)"),
        ("[regions]\npatience = true\n", "patience is a whole number"),
        ("[regions]\nlargest = 3\n", r"unknown key largest in \[regions\]"),
        ("[[[\n", "it is no TOML"),
        ("#" * (1 << 20) + "#\n", "it is larger than 1 MiB"),
        ("a = " + "[" * 5000, "it is no TOML"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, text, says):
    with pytest.raises(UsageError, match=rf"Scene file .*scene\.toml: .*{says}") as raised:
        read(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_missing_or_binary_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"Scene file .*nowhere.toml: it cannot be read \(No such file"):
        read_scene(tmp_path / "nowhere.toml", CLASSES)
    (tmp_path / "scene.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="it is no TOML"):
        read_scene(tmp_path / "scene.toml", CLASSES)


def analysed(analyst, scene, seq, *, state=State.LIVE):
    base = made(seq)
    frame = Frame(base.frame.counts, seq, seq * 100_000_000, state, LINEAR)
    found = measure(frame, base.class_map, CLASSES, scene)
    result = type(base)(
        frame, base.picture, base.class_map, found.classes, frame.t_ns, regions=found.regions, areas=found.areas
    )
    return analyst.follow(result)


def test_from_frames_to_alarms(tmp_path):
    scene = read(tmp_path, WHOLE)
    analyst = Analyst(scene)
    results = [analysed(analyst, scene, seq) for seq in range(8)]
    assert [[(region.name, region.number) for region in result.regions] for result in results] == [
        [("person", 1), ("machine", 2)]
    ] * 8
    assert [bool(result.alarms) for result in results] == [False] * 3 + [True] * 5
    (alarm,), last = results[-1].alarms, results[-1]
    assert (alarm.name, alarm.region, alarm.since_ns) == ("overheated", 2, 300_000_000)
    assert alarm.hotspot == last.areas["gate"]["machine"].hotspot == last.classes["machine"].hotspot
    assert last.areas["left door"]["machine"].pixels == 0
    assert sum(entry.pixels for entry in last.areas["gate"].values()) == 80 * 120
    # The shutter closes: numbers and alarms stay, temperatures are not told.
    closed = analysed(analyst, scene, 8, state=State.FFC)
    assert closed.alarms == last.alarms
    assert [region.number for region in closed.regions] == [1, 2]
    assert {region.statistics.max_c for region in closed.regions} == {None}
    assert {entry.max_c for entry in closed.areas["gate"].values()} == {None}


def test_without_a_scene_file_regions_are_found_and_followed():
    analyst = Analyst()
    results = [analysed(analyst, None, seq) for seq in (0, 1)]
    assert [region.number for region in results[1].regions] == [1, 2]
    assert (results[1].areas, results[1].alarms) == ({}, ())


def test_no_more_regions_are_kept_than_asked_for():
    labels = np.zeros((120, 160), np.uint8)
    labels[::10, ::10] = 1
    frame = Frame(np.zeros((120, 160), np.uint16), 0, 0)
    found = measure(frame, labels, CLASSES, Scene(smallest=1, most=5))
    assert len(found.regions) == 5


@pytest.mark.skipif("EDGEUNIP_DATA" not in os.environ, reason="EDGEUNIP_DATA names no folder of real data")
def test_a_real_animal_keeps_its_number_and_its_hottest_pixel():
    clip = np.load(Path(os.environ["EDGEUNIP_DATA"], "raw16-thermal", "lepton", "lepton_a.npz"))
    still, analyst = np.median(clip["frames"], 0), Analyst()
    classes = Classes(("background", "animal"), ((0, 0, 0), (255, 0, 0)))
    for seq, counts in enumerate(clip["frames"]):
        warmer = cv2.resize(counts - still.astype(np.float32), (40, 30), interpolation=cv2.INTER_AREA) > 60
        labels = cv2.resize(warmer.astype(np.uint8), (160, 120), interpolation=cv2.INTER_NEAREST_EXACT)
        frame = Frame(counts, seq, int(clip["time_ms"][seq]) * 1_000_000, radiometry=LINEAR)
        found = measure(frame, labels, classes)
        result = Result(frame, labels, labels, found.classes, frame.t_ns, regions=found.regions)
        (animal,) = analyst.follow(result).regions
        assert animal.number == 1
        x, y = animal.statistics.hotspot
        assert counts[y, x] == counts[labels == 1].max()
