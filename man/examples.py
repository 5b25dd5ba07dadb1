"""What the pages show under EXAMPLES: (what it does, the line). A test runs each through the program's parser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

EXAMPLES: Mapping[str, Sequence[tuple[str, str]]] = {
    "": [
        ("A folder into shards on disk:", "atdata-cli write photos/ shards/"),
        ("What is in them:", "atdata-cli inspect shards/"),
        ("To everybody, by a name:", "atdata-cli publish s3://bucket/photos @alice.example.com/photos"),
    ],
    "write": [
        (
            "A folder into shards of at most half a gigabyte:",
            "atdata-cli write photos/ s3://bucket/photos --max-size 512M",
        ),
        (
            "Rows, divided by key; broken ones are left out:",
            "atdata-cli write rows.jsonl out/ --split train=0.9,val=0.1 --on-error skip --rejects bad.jsonl",
        ),
        ("Files with a table of labels:", "atdata-cli write photos/ out/ --join labels.csv --on file"),
        ("From a pipe:", "zstdcat dump.zst | atdata-cli write - out/ --from jsonl --name dump"),
        (
            "Files that find(1) chooses:",
            "find photos -name '*.jpg' -newer stamp -print0 | atdata-cli write --files0-from - out/",
        ),
        ("What would be written:", "atdata-cli write photos/ s3://bucket/photos --dry-run"),
    ],
    "inspect": [
        ("What a dataset holds:", "atdata-cli inspect s3://bucket/photos"),
        ("One image, as a file:", "atdata-cli inspect shards/ --key cat/01 --field jpg > cat.jpg"),
        (
            "Check every byte; exit status 6 if anything is wrong:",
            "atdata-cli inspect 'others/{000..099}.tar' --verify",
        ),
        ("What the local index has:", "atdata-cli inspect @local --json"),
    ],
    "resolve": [
        ("URLs for WebDataset, good for half a day:", "atdata-cli resolve s3://bucket/photos --expires 12h"),
        ("One string for webdataset.WebDataset(...):", "atdata-cli resolve @local/photos --format wds"),
        ("Each shard to a program:", "atdata-cli resolve shards/ -0 | xargs -0 -n 1 tar -tf"),
    ],
    "copy": [
        ("Stage data for training:", "atdata-cli copy s3://bucket/photos /scratch/photos -j 8"),
        (
            "From somebody's public bucket into yours:",
            "atdata-cli copy s3://theirs/v1 s3://mine/v1 --source-no-sign-request",
        ),
    ],
    "publish": [
        ("In the local index:", "atdata-cli publish shards/ @local/photos --tag animals --license CC-BY-4.0"),
        ("For everybody, with the shards in your PDS:", "atdata-cli publish shards/ @alice.example.com/photos --blobs"),
    ],
    "unpublish": [("Take a name away, without being asked:", "atdata-cli unpublish @local/photos --yes")],
    "login": [
        (
            "With an app password that a keyring keeps:",
            "atdata-cli login alice.example.com --password-command 'pass show bluesky'",
        ),
    ],
    "logout": [("End the only session:", "atdata-cli logout")],
    "prune": [("Which shards the manifest no longer names:", "atdata-cli prune s3://bucket/photos --dry-run")],
    "abort": [("Remove what a job that was given up left:", "atdata-cli abort s3://bucket/photos")],
    "commit": [
        ("Finish a dataset whose parts were written on several machines:", "atdata-cli commit s3://bucket/photos")
    ],
    "stores": [("As JSON:", "atdata-cli stores --json")],
    "doctor": [
        ("Whether datasets can be written there:", "atdata-cli doctor s3://bucket/photos"),
        ("The policy alone:", "atdata-cli doctor s3://bucket/photos --json | jq .policy"),
    ],
    "config": [("Every setting that is not the default:", "atdata-cli config | grep -v 'default$'")],
}
