"""Drawings as tables: the rows of a product type become one function that draws it on a canvas.

The first row names what a style varies. An underscore stands for a space in the name that is drawn; `@ OTHER` draws by another name.

    width: .22~.3        a number             pockets: 40%             true for this share of the styles
    ribs: 3..8           a whole number       lining: deep|0x8c5c38    one of these paints, colours, numbers or words
    neck: told v|round   a choice that the item's attributes tell

The other rows are drawn in order. A row is one of these, several joined by `;`, or a block with rows inside:

    part PAINT LIGHT OUTLINE [edge=E] [opacity=O]     line PAINT WIDTH OUTLINE      tube PAINT WIDTH OUTLINE
    mark POINT SIZE [PAINT]                           text POINT SIZE PAINT TEXT    cut OUTLINE
    shape NAME OUTLINE     keeps an outline           NAME = EXPRESSION     keeps a value        use NAME     the shared rows of that name
    pair ROW     draws it left and right of the axis; inside, `side` is -1 and then 1
    pair: | if CONDITION: | elif CONDITION: | else: | for NAME in EXPRESSION: | while CONDITION:    blocks; heads are joined by `,`

A condition may be `NAME is OPTION|OPTION`. A point is `x,y` in shares of the canvas, x from the axis (`axis`, by default the middle) and y
from the top, or the name of such a pair. Numbers are expressions, without spaces outside brackets. Outlines:

    POINT POINT ...            straight lines         ellipse C R [FROM,TO]      about C, R is `rx,ry` or one number
    curve POINT ... [steps=N]  smooth, closed         box CORNER CORNER [ROUND]  slab HALF_WIDTH TOP BOTTOM [ROUND]
    path POINT ... [steps=N]   smooth, open           tile C HALF,HALF [ROUND]   bar HALF_WIDTH Y
    mirror OUTLINE             a right half and left  polygon C R SIDES [TURN]   star C R POINTS INNER
    arch OUTLINE               the same, open below   limb A B WIDTH_A WIDTH_B   NAME of a kept outline

`OUTLINE + OUTLINE` joins two; `mirror` and `arch` take all that follows. `curve mirror ...` smooths after mirroring, `mirror path ...` before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from types import CodeType
from typing import Any

from tgq.demo.drawing import outline as o
from tgq.demo.drawing.canvas import PAINT_NAMES, Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.surface import LIGHTS

Drawing = Callable[[Canvas, Shape], None]
DRAWS = ((r"(.+)~(.+)", "num({key}, {0}, {1})"), (r"(.+)\.\.(.+)", "count({key}, {0}, {1})"), (r"([\d.]+)%", "chance({key}, {0} / 100)"))
ROWS = {"part": "PLO", "line": "PEO", "tube": "PEO", "cut": "O", "mark": "XEP", "text": "XEPE"}  # P paint, L light, O outline, X point, E expression
OUTLINES = {"ellipse": "XR", "tile": "XR", "box": "XX", "limb": "TT", "polygon": "X", "star": "X", "slab": "A", "bar": "A"}  # R radii, T pair, A axis
KNOWN: dict[str, Any] = {name: getattr(math, name) for name in ("cos", "sin", "sqrt", "radians", "pi")}
KNOWN |= {f.__name__: f for f in (abs, enumerate, len, max, min, range, str, o.along)}
KNOWN |= {f"o_{name}": getattr(o, name) for name in ("at", "curve", "mirror", "arch", *OUTLINES)}
HEAD = """def draw_(canvas_, shape_):
  num, count, pick, chance = shape_.num, shape_.count, shape_.pick, shape_.chance
  material, ink = canvas_.look.material, canvas_.ink"""


def compile_table(name: str, rows: Sequence[Any], shared: Mapping[str, Sequence[Any]], axis: float = 0.5) -> Drawing:
    """The function that draws a table's rows.

    Raises:
        ValueError: a row has none of the forms above, or uses a name that nothing draws or keeps.
    """
    writer = _Writer(shared, axis)
    scope = dict(KNOWN)
    try:
        writer.table(rows, 1)
        exec(compile("\n".join(writer.lines), f"<{name}>", "exec"), scope)
    except (ValueError, IndexError, KeyError, SyntaxError) as e:
        raise ValueError(f"{name}, {writer.at}: {e}: write rows as described in {__name__}") from e
    missing = _names(scope["draw_"].__code__) - {*KNOWN, *dir(Canvas), *dir(Shape), "look", "material"}
    if missing:
        raise ValueError(f"{name} uses {', '.join(sorted(missing))}, which nothing draws or keeps: add it to the first row")
    return scope["draw_"]


def _names(code: CodeType) -> set[str]:
    """The names that a function takes from outside, attributes included."""
    return set(code.co_names).union(*(_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def _split(text: str, at: str) -> list[str]:
    """The pieces of a text between separators that stand in no bracket and no quotes."""
    pieces, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == "'"
        depth += (letter in "([{") - (letter in ")]}")
        if letter == at and not depth and not quoted:
            pieces.append("")
        else:
            pieces[-1] += letter
    return [p.strip() for p in pieces if p.strip()]


class _Writer:
    """Writes the Python of one table."""

    def __init__(self, shared: Mapping[str, Sequence[Any]], axis: float):
        self.shared, self.axis, self.side, self.at = shared, axis, "1", ""
        self.lines = [HEAD]

    def write(self, text: str, depth: int) -> None:
        """One line of Python; 0xRRGGBB becomes a triple."""
        self.lines.append("  " * depth + re.sub(r"\b0x(..)(..)(..)\b", lambda m: str(tuple(int(v, 16) for v in m.groups())), text))

    def table(self, rows: Sequence[Any], depth: int) -> None:
        for name, value in rows[0].items():
            self.at = f"{name}: {value}"
            if name in PAINT_NAMES:
                raise ValueError("this is the name of a paint")
            self.write(f"{name} = shape_.{self.draw(name, str(value))}", depth)
        self.block(rows[1:], depth)

    def draw(self, name: str, value: str) -> str:
        """The call that draws a style's value."""
        value, _, other = (v.strip() for v in value.partition("@"))
        key = repr(other or name.replace("_", " "))
        if value.startswith("told "):
            return f"trait({key}, {tuple(value[5:].split('|'))})"
        for pattern, call in DRAWS:
            if m := re.fullmatch(pattern, value):
                return call.format(*m.groups(), key=key)
        options = [v if re.fullmatch(r"0x[0-9a-f]{6}|[\d.]+", v) else repr(v) for v in value.split("|")]
        return f"pick({key}, ({', '.join(options)},))"

    def block(self, rows: Any, depth: int) -> None:
        for row in rows if isinstance(rows, list | tuple) else [rows]:
            for head, body in row.items() if isinstance(row, dict) else [("", row)]:
                before, inner = self.side, depth
                for self.at in _split(head, ","):
                    self.write(self.head(self.at), inner)
                    inner += 1
                if isinstance(body, str):
                    for self.at in _split(body, ";"):
                        self.row(self.at, inner)
                else:
                    self.block(body, inner)
                self.side = before

    def head(self, text: str) -> str:
        if text == "pair":
            self.side = "side"
            return "for side in (-1, 1):"
        if not re.match(r"(if|elif|for|while) |else$", text):
            raise ValueError("no block begins so")
        options = r"(\w+) is (not )?([\w|-]+(?: (?!and\b|or\b)[\w|-]+)*)"
        return re.sub(options, lambda m: f"{m[1]} {m[2] or ''}in {tuple(m[3].split('|'))}", text) + ":"

    def row(self, text: str, depth: int) -> None:
        verb, _, rest = text.partition(" ")
        words = _split(rest, " ")
        if re.match(r"[\w, ]+ = ", text):
            self.write(text, depth)
        elif verb == "pair":
            self.block({"pair": rest}, depth)
        elif verb == "use":
            self.table(self.shared[rest], depth)
        elif verb == "shape":
            self.write(f"{words[0]} = {self.outline(words[1:])}", depth)
        else:
            options = [w for w in words if re.match(r"(edge|opacity)=", w)]
            words = [w for w in words if w not in options]
            kinds = ROWS[verb]
            if len(words) < len(kinds) - (verb == "mark") or len(words) > len(kinds) and "O" not in kinds:
                raise ValueError("too few words or too many")
            args = [self.outline(words[k:]) if kind == "O" else self.word(kind, words[k]) for k, kind in enumerate(kinds[: len(words)])]
            self.write(f"canvas_.{verb}({', '.join(args + options)})", depth)

    def word(self, kind: str, word: str, placed: bool = True) -> str:
        """The Python of one argument; points are on the canvas, or (not placed) counted from the axis."""
        if kind == "P" or kind == "L":
            return repr(word) if word in (PAINT_NAMES if kind == "P" else LIGHTS) else word
        if kind == "T":
            return f"({self.word('X', word, placed)},)"
        x, *y = _split(word, ",")
        if kind == "R":
            return f"{x}, {y[0] if y else x}"
        if kind == "X" and not y:
            return f"*o_at({x}, {self.axis}, {self.side})" if placed else f"*{x}"
        return f"{self.axis} + {self.side} * ({x}), {y[0]}" if kind == "X" and placed else word

    def outline(self, words: list[str], placed: bool = True) -> str:
        """An outline on the canvas, or (not placed) the right half of one, counted from the axis."""
        word, rest = words[0], words[1:]
        if word in ("mirror", "arch"):
            return f"o_{word}({self.outline(rest, False)}, {self.axis})"
        whole = rest and rest[0] in ("mirror", "arch")  # a curve of all that follows
        if "+" in words and not whole:
            at = words.index("+")
            return f"{self.outline(words[:at], placed)} + {self.outline(words[at + 1 :], placed)}"
        if word in ("curve", "path"):
            steps = "".join(f", {w}" for w in rest if w.startswith("steps="))
            return f"o_curve({self.outline([w for w in rest if not w.startswith('steps=')], placed)}, closed={word == 'curve'}{steps})"
        if word in OUTLINES:
            args = [self.word(kind, w, placed) for kind, w in zip_longest(OUTLINES[word].replace("A", ""), rest, fillvalue="E")]
            return f"o_{word}({', '.join([str(self.axis)] * (OUTLINES[word] == 'A') + args)})"
        if not rest and len(_split(word, ",")) == 1:
            return word
        return f"[{', '.join(self.word('T', w, placed) for w in words)}]"
