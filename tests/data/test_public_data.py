"""The commands of docs/data.md on made-up files of the data sets' own layouts."""

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest

from rd_tf.command_line import parse
from rd_tf.data.dataset import load_dataset
from rd_tf.prepare import prepare

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
COMMANDS = [shlex.split(found) for found in re.findall(r"`python -m rd_tf\.prepare (--input=.*?)`", PAGE.read_text())]
NAMES = [command[0].removeprefix("--input=") for command in COMMANDS]
# Users 1 to 3 and items 10 to 13, in an order of time that is not that of the lines; ratings 3 to 5.
VISITS = [(user, 10 + number, 3 + (user + number) % 3, 100 - number) for user in (1, 2, 3) for number in range(4)]
BASE = 1_300_000_000


def reviews(user, item, value, time, **more):
    return "".join(
        json.dumps({user: f"A{u}", "text": 'so "good",\n☕', item: f"B{i}", value: float(r), time: BASE + t, **more})
        + "\n"
        for u, i, r, t in VISITS
    )


def clock(form):
    """A time `t` in minutes of one day."""
    return lambda t: form.format(t // 60, t % 60)


NYC, ISO, YELP = (
    clock("Tue Apr 03 {:02}:{:02}:09 +0000 2012"),
    clock("2010-10-19T{:02}:{:02}:27Z"),
    clock("2018-07-07 {:02}:{:02}:57"),
)
FILES = {
    "ml-100k/u.data": "".join(f"{u}\t{i}\t{r}\t{BASE + t}\n" for u, i, r, t in VISITS),
    "ml-1m/ratings.dat": "".join(f"{u}::{i}::{r}::{BASE + t}\n" for u, i, r, t in VISITS),
    "ml-25m/ratings.csv": "userId,movieId,rating,timestamp\n"
    + "".join(f"{u},{i},{r}.5,{BASE + t}\n" for u, i, r, t in VISITS),
    "dataset_TSMC2014_NYC.txt": "".join(
        f"{u}\t4b{i}\t4bf58dd\tCafé\t40.7\t-73.9\t-240\t{NYC(t)}\n" for u, i, _, t in VISITS
    ).encode("latin-1"),
    "dataset_TIST2015_Checkins.txt": "".join(f"{u}\t4b{i}\t{NYC(t)}\t180\n" for u, i, _, t in VISITS),
    "loc-gowalla_totalCheckins.txt.gz": "".join(f"{u}\t{ISO(t)}\t30.2\t-97.7\t{i}\n" for u, i, _, t in VISITS),
    "Digital_Music.jsonl.gz": reviews("user_id", "parent_asin", "rating", "timestamp", asin="x", images=[]),
    "reviews_Books_5.json.gz": reviews("reviewerID", "asin", "overall", "unixReviewTime", helpful=[0, 1]),
    "ratings_Books.csv": "".join(f"A{u},B{i},{r}.0,{BASE + t}\n" for u, i, r, t in VISITS),
    "Books.csv": "".join(f"B{i},A{u},{r}.0,{BASE + t}\n" for u, i, r, t in VISITS),
    "yelp_academic_dataset_review.json": "".join(
        json.dumps({"review_id": "x", "user_id": f"u-{u}", "business_id": f"b_{i}", "stars": float(r), "date": YELP(t)})
        + "\n"
        for u, i, r, t in VISITS
    ),
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    + "".join(f"{u}\t{i}\t{r}\t{BASE + t}.0\n" for u, i, r, t in VISITS),
    "gowalla/train.txt": "1 13 12 11 10\n2 13 12 11 10\n3 13 12 11 10 \n4 \n",
    "userid-timestamp-artid-artname-traid-traname.tsv": "".join(
        f'user_{u:06}\t{ISO(t)}\tart\t"Heroes\ttrack-{i}\tStray "mark\n' for u, i, _, t in VISITS
    ),
}


def test_every_command_has_a_file_and_every_file_a_command():
    assert sorted(NAMES) == sorted(FILES)


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_command(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    flags = parse(prepare, command)
    [name] = flags["input"]
    content = FILES[name] if isinstance(FILES[name], bytes) else FILES[name].encode()
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    manifest = prepare(**flags)
    kept = [visit for visit in VISITS if visit[2] >= float(flags["min_rating"] or 0)]
    assert manifest["interactions"] == len(kept)
    assert manifest["source"]["rows_read"] == len(VISITS)
    assert manifest["source"]["skipped_rows"]["count"] == 0
    found = load_dataset(flags["dataset"])
    assert len(found.user_ids) == 3
    for user, raw_id in enumerate(found.user_ids):
        number = int(re.search(r"\d+$", raw_id)[0])
        items = [int(re.search(r"\d+$", found.item_ids[item - 1])[0]) for item in found.items[found.users == user]]
        # The later a visit stands in the file, the earlier it was.
        assert items == [item for visitor, item, _, _ in reversed(kept) if visitor == number]
    lines = capsys.readouterr().out
    assert f"{name}: " in lines.splitlines()[0]
    assert "warning" not in lines
