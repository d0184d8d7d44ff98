from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.loadtest.plot import Line, latency_plot

SVG = "{http://www.w3.org/2000/svg}"
POINTS = st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e7)), max_size=20)


def drawn(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 (our own)


def test_every_line_is_drawn_and_every_label_is_in_the_legend_once() -> None:
    points = [(0.0, 3.0), (1.0, 40.0)]
    lines = [Line("low", points), Line("low", points, dashed=True), Line("high", points)]

    picture = drawn(latency_plot("Two lanes", lines))

    assert len(picture.findall(f"{SVG}polyline")) == 3
    texts = [text.text for text in picture.findall(f"{SVG}text")]
    assert texts.count("low") == texts.count("high") == 1
    assert texts[0] == "Two lanes"


def test_light_and_dark_paper_give_every_color_a_value() -> None:
    style = drawn(latency_plot("x", [])).findtext(f"{SVG}style") or ""

    light, _, dark = style.partition("prefers-color-scheme: dark")

    for name in ("--paper", "--ink", "--quiet", "--rule", *(f"--c{index}" for index in range(6))):
        assert f"{name}:" in light
        assert f"{name}:" in dark


def test_titles_and_labels_cannot_break_the_picture() -> None:
    svg = latency_plot('<b> & "', [Line("<script>", [(0, 1)])])

    assert "<script>" not in svg
    assert drawn(svg).get("aria-label") == '<b> & "'


@given(st.lists(POINTS, max_size=8))
def test_whatever_was_measured_the_picture_is_sound_and_inside_its_frame(
    lines: list[list[tuple[float, float]]],
) -> None:
    picture = drawn(
        latency_plot("x", [Line(f"l{index}", sorted(each)) for index, each in enumerate(lines)])
    )

    _, _, width, height = map(float, (picture.get("viewBox") or "").split())
    for line in picture.findall(f"{SVG}polyline"):
        for point in (line.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
