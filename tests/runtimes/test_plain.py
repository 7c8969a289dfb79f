import json
from dataclasses import replace

import pytest
from live_results import CLASSES, made

from edgeunip.frame import Alarm, ClassStatistics, State
from edgeunip.runtimes.analyse import measure
from edgeunip.runtimes.plain import plain


def whole():
    result = made(seq=3, dropped=2, state=State.SETTLING)
    found = measure(result.frame, result.class_map, CLASSES)
    alarm = Alarm("person max > 30 C", "warm", 5, 35.126, "C", (1, 2), 3)
    areas = {"gate": {"person": ClassStatistics(4, 0.123456, 1.005, 2.0, 3.0, (7, 8), 2.999, (1.26, 2.0))}}
    return replace(result, camera="hall", held=True, regions=found.regions, areas=areas, alarms=(alarm,))


def test_a_result_says_everything_but_its_pictures():
    result = whole()
    found = plain(result)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found) == [
        "camera", "seq", "t_ns", "age_ms", "state", "held", "dropped", "classes", "regions", "areas", "alarms"
    ]  # fmt: skip
    assert (found["camera"], found["seq"], found["state"], found["held"], found["dropped"]) == (
        "hall", 3, "settling", True, 2,
    )  # fmt: skip
    assert found["areas"]["gate"]["person"] == {
        "pixels": 4, "area": 0.1235, "min_c": 1.0, "mean_c": 2.0, "p95_c": 3.0, "max_c": 3.0, "hotspot": [7, 8],
        "centroid": [1.3, 2.0],
    }  # fmt: skip
    assert found["alarms"] == [{
        "name": "warm", "rule": "person max > 30 C", "since_ns": 5, "value": 35.13, "unit": "C", "hotspot": [1, 2],
        "region": 3,
    }]  # fmt: skip
    person = found["regions"][0]
    assert (person["name"], person["number"], person["box"]) == ("person", 0, list(result.regions[0].box))
    assert person["max_c"] == round(result.regions[0].statistics.max_c, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_what_is_no_number_is_null(value):
    result = made()
    result = replace(result, classes={"person": replace(result.classes["person"], min_c=value, p95_c=value)})
    entry = plain(result)["classes"]["person"]
    assert (entry["min_c"], entry["p95_c"]) == (None, None)
    assert entry["max_c"] is not None


def test_bare_counts_have_nulls():
    entry = plain(made(radiometry=None))["classes"]["machine"]
    assert [entry[key] for key in ("min_c", "mean_c", "p95_c", "max_c", "hotspot")] == [None] * 5
    assert entry["pixels"] > 0 and len(entry["centroid"]) == 2
