"""All fuzzes in one table: ``python -m tests.fuzz``; ``python -m tests.fuzz 20`` is a tenth of the cases.

Folders, records and answers are spoiled one thing at a time; see ``folder_fuzz``, ``record_fuzz`` and
``http_fuzz``. Ends with 1 where any case ends otherwise than in a right number or one clear line.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from command_line import SMALL, tracker
from folder_fuzz import print_table, try_folders
from http_fuzz import try_answers
from record_fuzz import try_records

RIGHT = {"right numbers", "another model's numbers", "right files", "one line", "named"}


def records(folder: Path, count: int) -> Counter[tuple[str, str]]:
    """Damage records of a small sweep made here; count file with damage, and outcome."""
    done = tracker(folder, "sweep", *SMALL, "sink=none")
    assert done.returncode == 0, done.stderr
    found = try_records(folder / "tracker-store", count, sums=True)
    return Counter({(f"{file}: {damage}", end): number for (file, damage, end), number in found.items()})


def main(share: int = 200) -> int:
    """Print the table of all three.

    Args:
        share: folders and answers; of records two and a half times as many.

    Returns:
        0 where every end is right.
    """
    parts = {
        "folder": (try_folders, share),
        "record": (records, share * 5 // 2),
        "answer": (try_answers, share),
    }
    counts = Counter[tuple[str, str]]()
    for name, (tried, count) in parts.items():
        with tempfile.TemporaryDirectory() as folder:
            found = tried(Path(folder), count)
        counts.update({(f"{name}: {what}", end): number for (what, end), number in found.items()})
    title = f"{share} folders, {share * 5 // 2} records and {share} HTTP answers, one thing changed in each"
    print_table(counts, title)
    return 0 if {end for _, end in counts} <= RIGHT else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
