"""What people see in the terminal: bars with rate, time left and bytes; plain lines; the closing chart."""

import io
import re

import polars as pl
import pytest
from rich.console import Console

from tracker.console import Bars, print_alerts, readable_rate
from tracker.console.charts import axis_line, braille, phase_line, places, show_charts

PHASES = [{"label": "initial", "first_step": 0}, {"label": "exploratory", "first_step": 128},
          {"label": None, "first_step": 1000}]  # fmt: skip


def terminal(width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def table(models: list[str], steps: list[int], status: str = "ok") -> pl.DataFrame:
    rows = [{"suite": "s", "model": model, "seed": 0, "step": step, "status": status, "params_total": size,
             "frequency_selectivity": 1 / (1 + step), "spectral_entropy": None if step == 1 else float(step)}
            for size, model in enumerate(models) for step in steps]  # fmt: skip
    return pl.DataFrame(rows)


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("rate", "text"), [(3, "3/s"), (0.2, "12/min"), (1 / 600, "6/h"), (1 / 43200, "2/d")]
)
def test_a_rate_has_the_unit_that_people_count_in(rate: float, text: str):
    assert readable_rate(rate) == text


def test_where_there_is_no_terminal_a_full_bar_is_one_line_with_its_time_bytes_and_note():
    console, clock = Console(file=io.StringIO(), width=200), Clock()
    bars = Bars(console, "measuring", get_time=clock)
    bars.add("70m seed 0", 4)
    bars.add("160m seed 0", 1)
    with bars.running():
        for done in range(1, 5):
            clock.now += 0.5
            bars.advance_to("70m seed 0", done, f"step {done}", fetched=2.5e9 * done)
        clock.now += 3
        bars.advance_to("160m seed 0", 1, "step 0")
    assert written(console).splitlines() == [
        "measuring 70m seed 0: 4/4 in 2 s, 2/s, 10 GB fetched, step 4",
        "measuring 160m seed 0: 1/1 in 3 s, 20/min, step 0",
    ]


def test_long_work_gives_a_sign_every_ten_minutes_and_the_rate_leaves_out_what_starting_up_cost():
    console, clock = Console(file=io.StringIO(), width=200), Clock()
    bars = Bars(console, "training", get_time=clock)
    bars.add("a", 10)
    bars.add("b", 10)
    for clock.now, name, done in ((600.0, "a", 1), (660.0, "a", 2), (720.0, "b", 3), (1324.0, "b", 5)):
        bars.advance_to(name, done)
    assert written(console).splitlines() == ["training a: 1/10", "training b: 5/10, 11.9/h, 25.2 min left"]


@pytest.mark.parametrize("width", [80, 140])
def test_in_a_terminal_a_bar_per_model_carries_the_same_and_its_note_where_there_is_room(width: int):
    console, clock = terminal(width), Clock()
    bars = Bars(console, "measuring", get_time=clock)
    bars.add("70m seed 0", 8)
    bars.add("<b>[red]", 2)
    with bars.running():
        for done in (1, 2):
            clock.now += 1
            bars.advance_to("70m seed 0", done, "step 0 in 0.5 s", fetched=1.28e9)
    assert re.search(r"━ +2/8 1/s, 6 s left, 1.28 GB fetched", written(console))
    assert "measuring <b>[red]" in written(console)
    assert ("step 0 in 0.5 s" in written(console)) == (width == 140)


def test_whoever_follows_from_outside_gets_the_same_reports():
    reports: list[tuple[object, ...]] = []

    class Listener:
        def begin(self, doing: str) -> None:
            reports.append((doing,))

        def moved(self, name: str, done: int, total: int, pace: str = "", note: str = "") -> None:
            reports.append((name, done, total, pace, note))

    bars = Bars(terminal(), "measuring", Listener())
    bars.show("m", 0, 4)
    bars.advance_to("m", 1, "step 1", fetched=2e6)
    assert reports == [
        ("measuring",), ("m", 0, 4, "", ""), ("m", 0, 4, "", ""), ("m", 1, 4, "2 MB fetched", "step 1"),
    ]  # fmt: skip


def test_long_lists_are_cut_short_and_never_read_as_markup():
    console = Console(file=io.StringIO(), width=200)
    print_alerts(console, [f"[b]m{number}[/b]" for number in range(7)])
    lines = written(console).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (6, "Alert: [b]m0[/b]", "and 2 more: tracker validate")


def test_a_curve_goes_from_corner_to_corner():
    rising = braille([0, 1, 3, 7], [0.0, 1.0, 2.0, 3.0], 10)
    assert [len(line) for line in rising] == [10, 10]
    assert ord(rising[0][-1]) & 0x08, "the last value is the highest dot"
    assert ord(rising[1][0]) & 0x40, "the first value is the lowest dot"
    assert rising[0][0] == rising[1][-1] == "\u2800"
    assert braille([5], [1.0], 4)[0][0] != "\u2800"
    assert places([0, 1, 3, 7], 7) == [0, 2, 4, 6]


def test_phases_and_steps_lie_where_their_steps_lie():
    steps = [0, 128, 512, 1000, 143000]
    line = phase_line(steps, PHASES, 60)
    begins = [index for index, character in enumerate(line) if character == "|"]
    assert begins == [places([*steps, phase["first_step"]], 60)[-1] for phase in PHASES]
    assert line.startswith("|initial")
    assert axis_line(steps, 60).split() == ["0", "512", "143000"]
    assert len(axis_line(steps, 60)) == 60


def test_every_run_is_drawn_and_names_are_text():
    console = terminal()
    phases = [{"suite": "s", "model": "[b]m[/b]", "seed": 0, "phases": PHASES}]
    show_charts(console, table(["[b]m[/b]", "big"], [0, 1, 128, 1000]), phases)
    said = written(console)
    assert "[b]m[/b] seed 0" in said
    assert said.index("[b]m[/b] seed 0") < said.index("big seed 0")
    assert said.count("Frequency selectivity") == said.count("Spectral entropy") == 2
    assert said.count("|exploratory") == 1
    assert max(map(len, said.splitlines())) <= 100


def test_many_runs_are_cut_short_and_short_ones_left_out():
    console = terminal()
    show_charts(console, table([f"m{number}" for number in range(9)], [0, 1, 2]), [])
    assert "... and 3 more runs" in written(console)
    show_charts(short := terminal(), table(["m"], [0, 1]), [])
    assert written(short) == ""


def test_without_a_terminal_or_its_characters_nothing_is_drawn():
    plain = Console(file=io.StringIO())
    show_charts(plain, table(["m"], [0, 1, 2]), [])
    assert written(plain) == ""
    narrow = terminal(30)
    show_charts(narrow, table(["m"], [0, 1, 2]), [])
    assert "m seed 0" in written(narrow)


def test_escape_sequences_of_names_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]):
    from tracker.cli import _refuse
    from tracker.console.output import make_console, print_line

    name = "a\x1b[2J\x9b31m\x07\u202eb"
    print_line(make_console(), name)
    _refuse(name)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert "a\\x1b[2J\\x9b31m\\x07\\u202eb" in text
        assert not set(text) & {"\x1b", "\x9b", "\x07", "\u202e"}
