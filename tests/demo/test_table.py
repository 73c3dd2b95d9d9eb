"""What a table may say, and that a wrong one is refused when it is read."""

import pytest

from tgq.demo.drawing.canvas import Brand, Canvas, Look
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.table import compile_table


def draw(*rows, half=0.5, shared=None, **options):
    """The canvas and the shape after drawing the rows, with every value in the middle of its range (or at `half`)."""
    shape = Shape(lambda name: half)
    canvas = Canvas(100, Look((40, 90, 180), (240, 200, 60), "solid", "cotton", Brand("Velmora", "star", (200, 40, 40))), shape)
    compile_table("Test", rows, shared or {}, **options)(canvas, shape)
    return canvas, shape


def covered(*rows, **options):
    return draw(*rows, **options)[0].alpha.getbbox()


@pytest.mark.parametrize(
    "row, box",
    [
        ("part main none slab .1 .2 .4", (40, 20, 61, 41)),
        ("part main none box .1,.2 .3,.4", (60, 20, 81, 41)),
        ("pair part main none box .1,.2 .3,.4", (20, 20, 81, 41)),
        ("part main none tile 0,.5 .1,.2", (40, 30, 61, 71)),
        ("part main none mirror .1,.2 .3,.4", (20, 20, 81, 41)),
        ("part main none -.1,.2 .1,.2 + 0,.6", (40, 20, 61, 61)),
        ("part main none ellipse 0,.5 .2,.1", (30, 40, 71, 61)),
        ("shape body slab .1 .2 .4; part main none body", (40, 20, 61, 41)),
        ("y = .2+.2; part main none slab .1 y-.2 y", (40, 20, 61, 41)),
        ({"for (x, y) in ((0, .1), (.2, .3))": "part main none box x,y x+.1,y+.1"}, (50, 10, 81, 41)),
        ({"if width > 1": "part main none slab .4 0 1", "else": "part main none slab width .2 .4"}, (40, 20, 61, 41)),
        ({"if cut is round|square, pair": "part main none box width,.2 .3,.4"}, (20, 20, 81, 41)),
        ({"if cut is not round": "part main none slab width .2 .4"}, (40, 20, 61, 41)),
        ({"if seen": "part main none slab width .2 .4"}, None),
    ],
)
def test_rows_draw_what_they_say(row, box):
    assert covered({"width": "0~.2", "cut": "told round|square", "seen": "50%"}, row) == box


def test_the_axis_moves_everything():
    assert covered({}, "part main none slab .1 .2 .4", axis=0.3) == (20, 20, 41, 41)


def test_values_are_drawn_by_name_and_told_where_the_table_says_so():
    seen = []
    shape = Shape(lambda name: seen.append(name) or 0.99)
    canvas = Canvas(100, Look((40, 90, 180), (240, 200, 60), "solid", "cotton", Brand("Velmora", "star", (200, 40, 40))), shape)
    first = {"neck": "told v|round neck", "rim_width": "1~2", "ribs": "3..8", "paint": "deep|0x0a141e", "depth": "0~1 @neck depth"}
    compile_table("Test", [first, "part paint none slab rim_width/10 .2 ribs/10"], {})(canvas, shape)
    assert seen == ["neck", "rim width", "ribs", "paint", "neck depth"]
    assert shape.traits == {"neck": "round neck"}
    assert canvas.colour.getpixel((50, 50)) == (10, 20, 30)
    assert canvas.alpha.getbbox() == (30, 20, 70, 81)


def test_shared_rows_bring_their_draws():
    assert covered({"top": "0~.4"}, "use bar", shared={"bar": [{"half": "0~.2"}, "part main none slab half top .4"]}) == (40, 20, 61, 41)


@pytest.mark.parametrize(
    "row, said",
    [
        ("part main none slab wdth .2 .4", "uses wdth, which nothing draws"),
        ("prt main none slab .1 .2 .4", "prt main none"),
        ("part main none slab .1 .2 (.4", "part main none slab"),
        ("part main", "part main: too few words"),
        ("mark 0,.5 .1 dark .2", "too many"),
        ("use torso", "use torso"),
        ({"when seen": "mark 0,.5 .1"}, "when seen: no block begins so"),
    ],
)
def test_a_wrong_row_is_named_when_the_table_is_read(row, said):
    with pytest.raises(ValueError, match="Test") as refused:
        compile_table("Test", [{"width": "0~.2"}, row], {})
    assert said in str(refused.value)


def test_a_draw_may_not_be_called_like_a_paint():
    with pytest.raises(ValueError, match="white: 1~2: this is the name of a paint"):
        compile_table("Test", [{"white": "1~2"}], {})
