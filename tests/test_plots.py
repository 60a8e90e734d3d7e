"""What the figures say, read back from the objects and pixels that make them."""

from __future__ import annotations

import importlib
import sys

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from genreplay_core import plots
from genreplay_core.metrics import interval

R = np.array([[0.10, 0.20], [0.984, 0.25], [0.40, 1.00]])
STEP = np.arange(6) * 100
ACCURACY = np.linspace(0, 1, 12).reshape(6, 2)


def ramp(tasks: int) -> np.ndarray:
    return np.linspace(0, 1, (tasks + 1) * tasks).reshape(tasks + 1, tasks)


def luminance(colour) -> float:
    """Relative luminance as WCAG 2 defines it, 0 (black) to 1 (white)."""
    rgb = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(rgb, [0.2126, 0.7152, 0.0722]))


def contrast(one, other) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"))


# ---------------------------------------------------------------- matrices


def test_each_cell_says_its_percentage_in_its_place():
    ax = plots.matrices({"replay": R}).axes[0]
    said = {text.get_position(): text.get_text() for text in ax.texts}  # at (column, row)
    assert [said[0, row] for row in range(3)] == ["10", "98", "40"]
    assert [said[1, row] for row in range(3)] == ["20", "25", "100"]


@pytest.mark.parametrize(("tasks", "cells"), [(10, 110), (11, 0)])
def test_only_up_to_ten_tasks_are_annotated(tasks, cells):
    assert len(plots.matrices({"replay": ramp(tasks)}).axes[0].texts) == cells


def test_each_matrix_is_titled_with_its_name_and_final_average():
    figure = plots.matrices({"none": R, "replay": np.ones((4, 3))})
    titles = [ax.get_title().split("\n") for ax in figure.axes[:2]]
    assert titles == [["none", "70.0 % in the end"], ["replay", "100.0 % in the end"]]


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_matrices_share_one_colour_bar_and_one_scale(count):
    figure = plots.matrices({f"method {i}": R * (i + 1) / count for i in range(count)})
    *maps, bar = figure.axes
    assert len(maps) == count
    assert {ax.images[0].get_clim() for ax in maps} == {(0, 100)}
    assert "%" in bar.get_ylabel()


@pytest.mark.parametrize("tasks", [1, 2, 10, 11, 12, 25])
def test_ticks_name_the_rows_and_columns_they_stand_at(tasks):
    ax = plots.matrices({"replay": ramp(tasks)}).axes[0]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    rows = ax.get_yticks()
    assert labels == ["untrained", *(f"after task {row}" for row in rows[1:])]
    assert 2 <= len(labels) <= 11
    assert rows[-1] <= tasks
    assert ax.get_xticks()[-1] <= tasks - 1


def test_the_step_line_runs_just_above_the_row_in_which_a_task_was_learned():
    line = plots.matrices({"replay": ramp(4)}).axes[0].patches[0].get_data()
    np.testing.assert_array_equal(line.edges, [-0.5, 0.5, 1.5, 2.5, 3.5])
    np.testing.assert_array_equal(line.values, [0.5, 1.5, 2.5, 3.5])  # row j + 1 begins at j + 0.5


def test_matrices_of_different_sizes_keep_their_own_rows():
    two, five, _ = plots.matrices({"two": ramp(2), "five": ramp(5)}).axes
    assert two.get_ylim() == (2.5, -0.5)
    assert five.get_ylim() == (5.5, -0.5)


def test_every_annotation_stands_out_from_its_cell():
    ax = plots.matrices({"replay": ramp(10)}).axes[0]
    cells = ax.images[0].to_rgba(ax.images[0].get_array())
    for text in ax.texts:
        column, row = text.get_position()
        assert contrast(text.get_color(), cells[row, column, :3]) > 3.5


def test_drawing_leaves_the_arrays_as_they_were():
    matrix, accuracy, images = R.copy(), ACCURACY.copy(), torch.rand(2, 1, 3, 3)
    kept = images.clone()
    plots.matrices({"replay": matrix})
    plots.curves(STEP, accuracy, [300])
    plots.dreams([("real", images)])
    np.testing.assert_array_equal(matrix, R)
    np.testing.assert_array_equal(accuracy, ACCURACY)
    assert torch.equal(images, kept)


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ({}, "give at least one"),
        ({"replay": R[1:]}, r"'replay' has shape \(2, 2\), expected \(T\+1, T\)"),
        ({"replay": R, "joint": R * 100}, r"'joint' .* outside \[0, 1\]"),
        ({"replay": R * np.nan}, "nan"),
    ],
)
def test_matrices_that_cannot_be_drawn_are_refused(results, why):
    with pytest.raises(ValueError, match=why):
        plots.matrices(results)


# ---------------------------------------------------------------- dreams


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (3, 4, 4), (3, 16)])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_grey_images_of_every_shape_are_drawn_pixel_by_pixel(shape, kind):
    images = np.random.default_rng(0).random((3, 4, 4))
    strip = plots.dreams([("real", kind(images.reshape(shape)))]).axes[0].images[0].get_array()
    for i, image in enumerate(images):
        drawn = strip[:, 5 * i : 5 * i + 4]  # one white column between two images
        np.testing.assert_array_equal(drawn, np.repeat(image[:, :, None], 3, axis=2))
    assert strip.shape == (4, 3 * 5 - 1, 3)


def test_colours_stay_in_their_channels():
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 1
    strip = plots.dreams([("red", red)]).axes[0].images[0].get_array()
    np.testing.assert_array_equal(strip, np.broadcast_to([1.0, 0.0, 0.0], (2, 2, 3)))


def test_dreams_that_carry_a_gradient_can_be_drawn():
    images = torch.rand(2, 1, 4, 4, requires_grad=True)
    assert len(plots.dreams([("now", images)]).axes) == 1


def test_each_strip_has_its_title_and_short_ones_end_in_white():
    rows = [("after task 0", np.zeros((4, 3, 3))), ("after task 1", np.zeros((1, 9)))]
    figure = plots.dreams(rows)
    assert [ax.get_ylabel() for ax in figure.axes] == ["after task 0", "after task 1"]
    first, second = (ax.images[0].get_array() for ax in figure.axes)
    assert first.shape == second.shape
    assert (second[:, :3] == 0).all()
    assert (second[:, 3:] == 1).all()


def test_images_of_different_sizes_share_a_figure():
    figure = plots.dreams([("large", np.ones((2, 3, 28, 28))), ("small", np.ones((2, 8, 8)))])
    assert [ax.images[0].get_array().shape[0] for ax in figure.axes] == [28, 8]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "at least one row"),
        ([("real", np.zeros((2, 2, 4, 4)))], r"'real' have shape \(2, 2, 4, 4\)"),
        ([("real", np.zeros((2, 15)))], "square"),
        ([("real", np.zeros(16))], "expected"),
        ([("real", np.zeros((0, 4, 4)))], "expected"),
        ([("bytes", np.full((1, 4, 4), 255, np.uint8))], r"'bytes' .* outside \[0, 1\]"),
        ([("late", torch.full((1, 4, 4), torch.nan))], "'late' holds nan"),
    ],
)
def test_images_that_cannot_be_drawn_are_refused(rows, why):
    with pytest.raises(ValueError, match=why):
        plots.dreams(rows)


# ---------------------------------------------------------------- curves


def test_curves_draw_each_task_in_percent_and_each_boundary():
    ax = plots.curves(STEP, ACCURACY, [200, 400], ["first", "second"]).axes[0]
    *changes, first, second = ax.lines
    assert [line.get_xdata()[0] for line in changes] == [200, 400]
    for line, column in [(first, 0), (second, 1)]:
        np.testing.assert_array_equal(line.get_xdata(), STEP)
        np.testing.assert_allclose(line.get_ydata(), 100 * ACCURACY[:, column])
    assert [line.get_label() for line in (first, second)] == ["first", "second"]
    assert ax.get_xlabel() == "training step"
    assert "%" in ax.get_ylabel()


def test_twenty_tasks_have_twenty_different_lines():
    ax = plots.curves(STEP, np.ones((6, 20))).axes[0]
    looks = {(line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert len(looks) == 20


def test_every_line_colour_stands_out_from_the_sheet():
    assert min(contrast(colour, "white") for colour in plots.COLOURS) > 2


@pytest.mark.parametrize(
    ("step", "accuracy", "names", "why"),
    [
        (STEP[:-1], ACCURACY, None, r"expected \(S,\) and \(S, T\)"),
        (STEP, ACCURACY[:, 0], None, r"expected \(S,\) and \(S, T\)"),
        ([], np.zeros((0, 2)), None, r"expected \(S,\) and \(S, T\)"),
        (STEP, 100 * ACCURACY, None, "divide percentages by 100"),
        (STEP, ACCURACY, ["one"], "expected one for each of 2 tasks"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(step, accuracy, names, why):
    with pytest.raises(ValueError, match=why):
        plots.curves(step, accuracy, names=names)


# ---------------------------------------------------------------- intervals

ROWS = [("none", [0.2, 0.25], (0.1, 0.35)), ("conditional", [0.9], None)]


def test_each_row_shows_its_seeds_its_interval_and_its_mean_in_percent():
    (ax,) = plots.intervals(ROWS).axes
    drawn = [(list(line.get_xdata()), set(line.get_ydata())) for line in ax.lines]
    assert drawn == [
        *(([20, 25], {0}), ([10, 35], {0}), ([22.5], {0})),
        *(([90], {1}), ([90], {1})),  # one seed has no interval
    ]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["none", "conditional"]
    assert ax.yaxis_inverted()  # the first row is on top
    assert ax.get_xlabel() == "average accuracy (%)"
    assert plots.intervals(ROWS, "forgetting (%)").axes[0].get_xlabel() == "forgetting (%)"


def test_the_mean_covers_the_interval_and_the_interval_the_seeds():
    (ax,) = plots.intervals(ROWS).axes
    orders = [line.get_zorder() for line in ax.lines[:3]]
    assert orders == sorted(set(orders))


@pytest.mark.parametrize("length", [3, 8, 20, 32, 45])
def test_a_legend_names_each_line_once_for_all_panels_and_a_phone_shows_all_of_it(length):
    names = [letter * length for letter in "abcdef"]
    figure = plots.sheet(7.5, 3.0)
    for ax in figure.subplots(1, 2):
        for name in names:
            ax.plot([0, 1], label=name)
    plots.legend(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert box.x0 < 0.2 * figure.dpi
    assert box.x1 < 5.5 * figure.dpi  # a phone of 390 pixels shows 5.7 inches


def test_marks_are_lines_from_top_to_bottom_that_the_legend_names():
    figure = plots.intervals(ROWS, marks={"published": 0.93, "joint": 0.98})
    (ax,) = figure.axes
    marks = ax.lines[-2:]
    assert [list(line.get_xdata()) for line in marks] == [[93, 93], [98, 98]]
    assert [list(line.get_ydata()) for line in marks] == [[0, 1], [0, 1]]  # parts of the height
    assert marks[0].get_linestyle() != marks[1].get_linestyle()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["published", "joint"]
    assert plots.intervals(ROWS).legends == []


def test_differences_below_zero_can_be_drawn():
    (ax,) = plots.intervals([("none", [-0.5], None)]).axes
    assert list(ax.lines[0].get_xdata()) == [-50]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "at least one row"),
        ([("a", [], None)], "row 'a' needs"),
        ([("a", [0.1, np.nan], None)], "row 'a' needs"),
        ([("a", [[0.1]], None)], "one a seed"),
        ([("a", 0.1, None)], "one a seed"),
    ],
)
def test_intervals_of_nothing_are_refused(rows, said):
    with pytest.raises(ValueError, match=said):
        plots.intervals(rows)


# ---------------------------------------------------------------- surface

TABLE = [[0.1, 0.25, 0.5], [0.123, 0.75, 1.0]]
FACTORS = ("steps", [100, 200]), ("hidden", [8, 16, "wide"])


def test_each_cell_of_a_surface_says_its_percentage_in_its_place():
    (ax,) = plots.surface(TABLE, *FACTORS).axes
    said = {text.get_position(): text.get_text() for text in ax.texts}  # at (column, row)
    assert [said[column, 0] for column in range(3)] == ["10.0", "25.0", "50.0"]
    assert [said[column, 1] for column in range(3)] == ["12.3", "75.0", "100.0"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("steps", "hidden")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["100", "200"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["8", "16", "wide"]


@pytest.mark.parametrize("table", [TABLE, [[0.5] * 3] * 2, [[-0.5, 0.0, 0.5]] * 2])
def test_the_numbers_of_a_surface_can_be_read(table):
    (ax,) = plots.surface(table, *FACTORS).axes
    (image,) = ax.images
    colours = image.cmap(image.norm(image.get_array()))
    for text in ax.texts:
        column, row = text.get_position()
        assert contrast(text.get_color(), colours[row, column]) > 3.5


def test_the_colours_of_a_surface_reach_from_its_smallest_to_its_largest_value():
    (image,) = plots.surface(TABLE, *FACTORS).axes[0].images
    assert image.get_clim() == (10, 100)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (TABLE[:1], "expected a value for each pair"),
        (np.transpose(TABLE), "expected a value for each pair"),
        ([[0.1, np.nan, 0.5]] * 2, "holds nan or a value outside"),
        ([[10, 25, 50]] * 2, "expected fractions"),
        ([[0.1, -1.5, 0.5]] * 2, "expected fractions"),
    ],
)
def test_a_surface_that_cannot_be_is_refused(values, said):
    with pytest.raises(ValueError, match=said):
        plots.surface(values, *FACTORS)


# ---------------------------------------------------------------- bars

MEASURED = {"ours": (48.0, 52.14, 53.5), "bound": (65.0, 66.0, 67.0), "theirs": (14.0, 14.0, 15.5)}


def test_bars_are_as_long_as_the_medians_and_stand_in_their_order():
    ax = plots.bars(MEASURED, "steps per second").axes[0]
    assert [bar.get_width() for bar in ax.patches] == [52.14, 66.0, 14.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(MEASURED)
    assert [round(bar.get_y() + bar.get_height() / 2) for bar in ax.patches] == [0, 1, 2]
    assert ax.yaxis_inverted()  # the first one is on top
    assert ax.get_xlabel() == "steps per second"


def test_a_line_runs_from_quartile_to_quartile_with_the_median_beyond():
    ax = plots.bars(MEASURED, "steps per second").axes[0]
    ends = [line[:, 0] for line in ax.collections[0].get_segments()]
    np.testing.assert_allclose(ends, [(low, high) for low, _, high in MEASURED.values()])
    said = {text.get_position(): text.get_text().strip() for text in ax.texts}
    assert said == {(53.5, 0): "52.14", (67.0, 1): "66", (15.5, 2): "14"}
    assert ax.get_xlim() == (0, pytest.approx(1.1 * 67))


def test_nothing_but_zeros_still_has_an_axis():
    assert plots.bars({"idle": (0, 0, 0)}, "steps").axes[0].get_xlim() == (0, 1)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "give at least one"),
        ({"a": (2, 1, 3)}, "'a' has 2, 1, 3, expected quartile, median, quartile"),
        ({"a": (1, 2, 3), "b": (-1, 0, 1)}, "'b' has -1, 0, 1"),
        ({"a": (1, np.nan, 3)}, "nan"),
        ({"a": (1, 2, np.inf)}, "inf"),
    ],
)
def test_bars_that_cannot_be_drawn_are_refused(values, why):
    with pytest.raises(ValueError, match=why):
        plots.bars(values, "steps per second")


SERIES = {"sizes": [10, 100], "seconds": [1.0, 10.0], "exponent": 1.0}


def test_scaling_has_a_panel_for_each_series_with_its_exponent():
    figure = plots.scaling({"steps": SERIES, "tasks": {**SERIES, "exponent": 0.5}})
    assert [ax.get_xlabel() for ax in figure.axes] == ["steps", "tasks"]
    assert [ax.get_title() for ax in figure.axes] == ["exponent 1.00", "exponent 0.50"]
    for ax in figure.axes:
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[10, 1], [100, 10]])
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


@pytest.mark.parametrize(
    ("series", "why"),
    [
        ({}, "must be a positive integer"),
        ({"steps": {**SERIES, "seconds": [1.0]}}, "must have same first dimension"),
    ],
)
def test_scaling_that_cannot_be_drawn_is_refused(series, why):
    with pytest.raises(ValueError, match=why):
        plots.scaling(series)


# ---------------------------------------------------------------- band


def test_a_band_is_the_interval_around_the_mean_in_the_colour_of_its_line():
    ax, found = plots.sheet(3, 2).subplots(), [interval([1.0, 3.0]), interval([5.0, 5.0])]
    plots.band(ax, [10, 20], found, color="#d55e00", label="mine")
    line, filled = ax.lines[0], ax.collections[0]
    assert line.get_xydata().tolist() == [[10, 2], [20, 5]]
    assert line.get_label() == "mine"
    corners = filled.get_paths()[0].vertices
    assert sorted(set(corners[corners[:, 0] == 10, 1])) == pytest.approx(found[0][2:])
    assert set(corners[corners[:, 0] == 20, 1]) == {5.0}
    assert to_rgb(filled.get_facecolor()[0, :3]) == to_rgb("#d55e00")


# ---------------------------------------------------------------- style and files


FIGURES = {
    "matrices": lambda: plots.matrices({"none": R, "replay": ramp(3)}),
    "dreams": lambda: plots.dreams([("real", np.zeros((2, 4, 4)))]),
    "curves": lambda: plots.curves(STEP, ACCURACY, [300]),
    "intervals": lambda: plots.intervals(ROWS, marks={"published": 0.93}),
    "surface": lambda: plots.surface(TABLE, *FACTORS),
    "bars": lambda: plots.bars(MEASURED, "steps per second"),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_reader_with_dark_settings_gets_the_same_picture(draw, tmp_path):
    plots.save(draw(), tmp_path / "plain.png")
    dark = {"savefig.facecolor": "black", "axes.grid": True, "legend.labelcolor": "white"}
    with mpl.style.context(["dark_background", dark]):
        plots.save(draw(), tmp_path / "dark.png")
    plain = pixels(tmp_path / "plain.png")
    np.testing.assert_array_equal(pixels(tmp_path / "dark.png"), plain)
    np.testing.assert_array_equal(plain[[0, 0, -1, -1], [0, -1, 0, -1]], 255)  # white and opaque


def test_nothing_needs_pyplot_and_its_global_state(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    fresh = importlib.reload(plots)
    fresh.save(fresh.matrices({"replay": R}), tmp_path / "r.png")
    fresh.save(fresh.dreams([("real", np.zeros((2, 4, 4)))]), tmp_path / "d.png")
    fresh.save(fresh.curves(STEP, ACCURACY), tmp_path / "c.png")
    assert len(list(tmp_path.iterdir())) == 3


def test_equal_figures_are_saved_as_equal_files(tmp_path):
    for name in ("one.png", "two.png"):
        plots.save(plots.curves(STEP, ACCURACY), str(tmp_path / name))
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one.startswith(b"\x89PNG")
    assert one == two
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.png", "two.png"]


class HalfWritten(Figure):
    def savefig(self, fname, **_):
        fname.write_bytes(b"half a pict")
        raise OSError("the disk is full")


def test_a_failed_save_leaves_the_old_picture_and_no_rubbish(tmp_path):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="the disk is full"):
        plots.save(HalfWritten(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_of_the_old_picture_never_sees_the_new_one_half_written(tmp_path):
    path, held = tmp_path / "curve.png", tmp_path / "held.png"
    path.write_bytes(b"old")
    held.hardlink_to(path)  # stands for a reader: a second hold on the same bytes
    plots.save(plots.curves(STEP, ACCURACY), path)
    assert held.read_bytes() == b"old"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"end it in \.png"):
        plots.save(Figure(), tmp_path / "curve.pdf")
