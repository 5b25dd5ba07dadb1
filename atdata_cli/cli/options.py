"""The options of all commands, each defined once: help, man pages and completions are made from these."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from atdata_cli import __version__
from atdata_cli.cli.choices import Color, Compression, Encoding, IfCopied, IfExists, OnError, UrlFormat
from atdata_cli.cli.given import begin, expand, index_options, settings, store_options, use_network, want_events
from atdata_cli.cli.settings import Settings, load
from atdata_cli.errors import ExitCode

__all__ = [
    "Color",
    "Compression",
    "Encoding",
    "IfCopied",
    "IfExists",
    "OnError",
    "UrlFormat",
    "expand",
    "index_options",
    "parse_duration",
    "parse_seconds",
    "parse_size",
    "settings",
    "store_options",
    "use_network",
]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DECIMAL_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(text: str) -> int:
    """Bytes of ``512M`` or ``512MiB`` (powers of 1024) or ``512MB`` (powers of 1000).

    Raises
    ------
    typer.BadParameter : it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?B)?", str(text).strip().upper())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; 512M, 1GiB and 1GB are")
    number, unit, ending = match.groups()
    factor = _DECIMAL_UNITS[unit + "B"] if unit and ending == "B" else _UNITS[unit]
    if len(number) > 30:
        raise typer.BadParameter(f"{number[:30]}… is more than any store holds")
    return int(number) * factor if number.isdecimal() else int(float(number) * factor)


def _read_settings(ctx: typer.Context, file: str | None) -> None:
    """Make what the environment and the files say the defaults of the command's options."""
    if ctx.resilient_parsing:
        return
    found: Settings = ctx.obj if ctx.obj is not None and file is None else load(file)
    begin(found)
    said = found.defaults(ctx.command.name or "")
    by_option = {f"--{name}": value for name, value in said.items()}
    ctx.meta[ORIGINS] = origins = {}
    ctx.default_map = {}
    for parameter in ctx.command.params:
        for option in parameter.opts:
            if option in by_option and parameter.name:
                ctx.default_map[parameter.name] = by_option[option].value
                origins[parameter.name] = by_option[option]


ORIGINS = "atdata_cli.origins"
"""Where a context's ``meta`` has the values of parameters that were not typed."""

ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read FILE instead of your own configuration; default ~/.config/atdata-cli/config.toml.",
        callback=_read_settings,
        is_eager=True,
        expose_value=False,
    ),
]


def _tell_events(ctx: typer.Context, wanted: bool) -> None:
    want_events(wanted=wanted)


JsonEvents = Annotated[
    bool,
    typer.Option(
        "--json-events",
        help="Tell progress, messages and errors as JSON, one object a line, on stderr.",
        callback=_tell_events,
        is_eager=True,
        expose_value=False,
    ),
]


def _expanded(ctx: typer.Context, param: typer.CallbackParam, value: str | list[str]) -> str | list[str]:
    if ctx.resilient_parsing:
        return value
    operand = param.name or ""
    if isinstance(value, str):
        return expand(value, operand)
    return [expand(text, operand) for text in value]


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_seconds(text: str) -> float:
    """Seconds of ``30``, ``0.5``, ``30s`` or ``2m``.

    Raises
    ------
    typer.BadParameter : it is no such time, or none at all.
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*([smh]?)", str(text).strip().lower())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0
    if not seconds:
        raise typer.BadParameter(f"{text!r} is no time to wait; 30, 30s and 2m are")
    return seconds


def exit_codes_help() -> str:
    """The exit codes as one paragraph of help."""
    return "Exit codes: " + "; ".join(f"{int(code)} {code.meaning}" for code in ExitCode) + "."


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"atdata-cli {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]

# Common to all commands.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print no messages, and no list of what was done, unless it fails.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more about what is done.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Print the plan, write nothing; same exit code as the real run.")
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bar on a terminal.")]
ColorWhen = Annotated[Color, typer.Option("--color", help="Colour what is printed for people.")]

# Stores.
EndpointUrl = Annotated[str | None, typer.Option(metavar="URL", help="S3 endpoint; default AWS_ENDPOINT_URL.")]
Profile = Annotated[str | None, typer.Option(metavar="NAME", help="AWS profile; default AWS_PROFILE.")]
Region = Annotated[str | None, typer.Option(metavar="NAME", help="AWS region; default AWS_REGION.")]
StoreOption = Annotated[
    list[str] | None,
    typer.Option("-o", "--store-option", metavar="KEY=VALUE", help="Option of the store's file system; repeatable."),
]
Retries = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Repeat a request N times if it fails for the moment; default 6.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="TIME", parser=parse_seconds, help="How long a server may be silent: 30, 90s, 2m; default 60s."
    ),
]
CaBundle = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Trust these certificate authorities; default SSL_CERT_FILE, else the system's."),
]

Examined = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        callback=_expanded,
        help="A folder, a URL prefix such as s3://BUCKET/PREFIX, or @HANDLE.",
        show_default=False,
    ),
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Write nothing: look only at what reading needs.")]

# Indexes.
IndexFile = Annotated[
    str | None,
    typer.Option("--index", metavar="FILE", help="The local index; default ATDATA_INDEX, else ~/.atdata/index.db."),
]

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET", help="A name in an index: @local/NAME, @HANDLE/NAME, or with @VERSION.", show_default=False
    ),
]
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="What it is; '' takes an old one away.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TEXT", help="A word to find it by; repeatable.")]
License = Annotated[
    str | None, typer.Option("--license", metavar="ID", help="Its license: an SPDX identifier (MIT, CC-BY-4.0) or URL.")
]
Metadata = Annotated[
    str | None, typer.Option("--metadata", metavar="FILE", help="A JSON object with whatever else is to be said.")
]
PublishedSchema = Annotated[
    str | None, typer.Option("--schema", metavar="FILE", help="JSON Schema of a sample; default the manifest's.")
]
PublishedSplit = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="Publish this split; an entry holds one.")
]
VerifyFirst = Annotated[
    bool,
    typer.Option("--verify", help="Read every byte before; needed where the shards have no manifest."),
]
Blobs = Annotated[bool, typer.Option("--blobs", help="Copy the shards into your PDS first.")]
AllowLocalUrl = Annotated[
    bool, typer.Option("--allow-local-url", help="Publish URLs that only this machine can reach (for tests).")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

# Sources.
Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE... DEST",
        help="Folders, globs, .jsonl, .csv, .tsv, .parquet, .arrow, .tar files or '-', at paths or URLs; then the "
        "folder or URL prefix to write to.",
        show_default=False,
    ),
]
FilesFrom = Annotated[
    str | None, typer.Option(metavar="FILE", help="Read SOURCEs from FILE, one a line; '-' is stdin.")
]
Files0From = Annotated[str | None, typer.Option(metavar="FILE", help="As --files-from, separated by NUL bytes.")]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FORMAT",
        help="What SOURCE is: files, tar, jsonl, csv, tsv, parquet, arrow or msgpack; default by its name.",
    ),
]
StdinFromCommand = Annotated[
    bool,
    typer.Option(
        "--stdin-from-command", help="Read the output of a command: DEST -- CMD ARGS...; finishes only if CMD exits 0."
    ),
]
Include = Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Only these files of a folder; repeatable.")]
Exclude = Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Not these files of a folder; repeatable.")]
Join = Annotated[
    str | None, typer.Option(metavar="FILE", help="Add a row file's columns to the samples whose files it names.")
]
On = Annotated[str | None, typer.Option(metavar="FIELD", help="The column of --join that names the file.")]
Null = Annotated[str | None, typer.Option(metavar="STR", help="CSV cells that mean null, besides empty ones.")]
NoInfer = Annotated[bool, typer.Option("--no-infer", help="Leave all CSV cells text.")]

Depfile = Annotated[
    str | None,
    typer.Option(
        "--depfile",
        metavar="FILE",
        help="Write the local files and folders that were read, also those that a table names, to FILE, as rules that "
        "make can -include: the manifest depends on them. URLs and streams are not in it.",
    ),
]
DepfileTarget = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="What depends on them, not the manifest: needed where DEST is no local folder."),
]

# Samples.
Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The dataset's name; default the first SOURCE's; with --part NAME that of DEST."),
]
Key = Annotated[
    str | None,
    typer.Option(metavar="FIELD", help="Keys of rows: a field, or a template such as '{stem}-{row}'."),
]
Fields = Annotated[str | None, typer.Option(metavar="A,B", help="Keep these fields only.")]
EncodingOption = Annotated[
    Encoding | None,
    typer.Option("--encoding", help="One member a field, or one msgpack map a sample; default by the source."),
]
Embed = Annotated[
    list[str] | None, typer.Option(metavar="FIELD", help="Read the file that FIELD of a row names; repeatable.")
]
EmbedRoot = Annotated[
    str | None, typer.Option(metavar="DIR", help="Embed no file outside DIR; default the row file's folder.")
]
Schema = Annotated[str | None, typer.Option(metavar="FILE", help="JSON Schema that converts and checks rows.")]
OnErrorOption = Annotated[
    OnError, typer.Option("--on-error", help="A sample that cannot be written fails the run, or is left out.")
]
RejectsFile = Annotated[
    str | None, typer.Option("--rejects", metavar="FILE", help="Write each rejected sample with its reason to FILE.")
]
MaxErrors = Annotated[int | None, typer.Option(metavar="N", min=0, help="Fail after more than N rejects.")]
MinSamples = Annotated[int, typer.Option(metavar="N", min=0, help="Fewer samples than N are an error.")]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="No samples are no error.")]

# Shards.
MaxCount = Annotated[int | None, typer.Option(metavar="N", help="Samples a shard at most; default 10000.")]
MaxSize = Annotated[
    int | None,
    typer.Option(metavar="SIZE", parser=parse_size, help="Tar bytes a shard at most: 512M, 1GB; default 1G."),
]
Shards = Annotated[
    int | None, typer.Option(metavar="N", help="Make N shards, even to one sample; with --split, N for each split.")
]
ShardsMultipleOf = Annotated[
    int | None, typer.Option(metavar="N", help="Make a multiple of N even shards; with --split, for each split.")
]
Split = Annotated[str | None, typer.Option(metavar="NAME=SHARE,...", help="Divide by key hash: train=0.9,val=0.1.")]
SplitBy = Annotated[str | None, typer.Option(metavar="FIELD", help="Keep samples of equal FIELD in one split.")]
SplitFrom = Annotated[str | None, typer.Option(metavar="FIELD", help="Take the split from FIELD.")]
Shuffle = Annotated[bool, typer.Option("--shuffle", help="Write all samples in a random order.")]
Seed = Annotated[int | None, typer.Option(metavar="N", min=0, help="Which random order --shuffle gives; default 0.")]
Compress = Annotated[Compression | None, typer.Option("--compress", help="Compress the shards.")]
EngineOption = Annotated[
    str, typer.Option("--engine", metavar="ENGINE", help="Who makes the shards: local, or dask://HOST:PORT.")
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N|auto|NAME",
        help="Write one of N parts; auto: as SLURM or CI says; NAME: a part with its own input. See commit.",
    ),
]
IfExistsOption = Annotated[
    IfExists,
    typer.Option(
        "--if-exists",
        help="What DEST holds: finish the same dataset and refuse others, replace what changed, or refuse everything.",
    ),
]
Prefix = Annotated[
    str,
    typer.Argument(
        metavar="DEST", callback=_expanded, help="The folder or URL prefix of a dataset.", show_default=False
    ),
]
Prune = Annotated[
    bool, typer.Option("--prune", help="Delete shards that the new manifest no longer names; their readers fail.")
]
ExitUnchanged = Annotated[bool, typer.Option("--exit-unchanged", help="Exit 9, not 0, if there is nothing to do.")]

# Reading.
Reference = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        callback=_expanded,
        help="A dataset: a folder, prefix, manifest, shard, glob or brace range, at a path or URL; or @INDEX/NAME.",
        show_default=False,
    ),
]
Head = Annotated[int | None, typer.Option(metavar="N", min=1, help="Show the first N samples.")]
SampleKey = Annotated[str | None, typer.Option("--key", metavar="KEY", help="Show the sample KEY.")]
SampleField = Annotated[
    str | None,
    typer.Option("--field", metavar="F", help="With --key: write field F to stdout, byte for byte; not with --json."),
]
Verify = Annotated[bool, typer.Option("--verify", help="Check every byte; list everything that is wrong.")]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", metavar="N", min=1, help="Processes; as many as cores by default, or fewer."),
]

# Resolving.
References = Annotated[
    list[str],
    typer.Argument(
        metavar="REF",
        callback=_expanded,
        help="Datasets or shards: folders, prefixes, manifests, shards, globs or brace ranges, at paths or URLs; or "
        "@INDEX/NAME.",
        show_default=False,
    ),
]


UrlFormatOption = Annotated[
    UrlFormat | None,
    typer.Option(
        "--format",
        help="One URL a line; brace patterns; a JSON document; or one string for WebDataset(...). Default lines.",
        show_default=False,
    ),
]
NulSeparated = Annotated[bool, typer.Option("--null", "-0", help="End each URL with a NUL byte, not a newline.")]
OutputFile = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write to FILE, which only its owner can read then."),
]


def parse_duration(text: str) -> int:
    """Seconds of ``90``, ``90s``, ``15m``, ``1h`` or ``7d``, at most 7 days.

    Raises
    ------
    typer.BadParameter : it is no duration, or S3 signs nothing for so long.
    """
    match = re.fullmatch(r"([0-9]{1,9})\s*([smhd]?)", str(text).strip().lower())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration; 90, 90s, 15m, 1h and 7d are")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if not 1 <= seconds <= 7 * 86400:
        raise typer.BadParameter(f"{text}: signed URLs are good for 1s to 7d")
    return seconds


Expires = Annotated[
    int | None,
    typer.Option(
        metavar="TIME",
        parser=parse_duration,
        help="How long signed URLs are good: 90, 90s, 15m, 12h, at most 7d; default 1h.",
    ),
]
NoSignRequest = Annotated[bool, typer.Option("--no-sign-request", help="Use no credentials, sign nothing.")]
ReadUnsigned = Annotated[
    bool, typer.Option("--no-sign-request", help="Read SOURCEs without credentials, as from a public bucket.")
]
Canonical = Annotated[
    bool, typer.Option("--canonical", help="Print the stores' own URLs (s3://...), which never expire.")
]
CheckUrls = Annotated[
    bool, typer.Option("--check", help="Open each URL and read its first tar header; print nothing if one fails.")
]
SplitName = Annotated[str | None, typer.Option("--split", metavar="NAME", help="The shards of this split only.")]
# Where -o is --output.
LongStoreOption = Annotated[
    list[str] | None,
    typer.Option("--store-option", metavar="KEY=VALUE", help="Option of the store's file system; repeatable."),
]
Html = Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write a page to look at; '-' is stdout.")]

# Copying.
IfCopiedOption = Annotated[
    IfCopied,
    typer.Option("--if-exists", help="The same copy in DEST is left as it is or finished, or is an error."),
]
Dest = Annotated[
    str,
    typer.Argument(metavar="DEST", callback=_expanded, help="The folder or URL prefix to copy to.", show_default=False),
]
CopyJobs = Annotated[
    int, typer.Option("--jobs", "-j", metavar="N", min=1, help="Shards under way at once; each takes up to 15 MB.")
]
SourceEndpointUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="S3 endpoint of REF, where it is not that of DEST.")
]
SourceProfile = Annotated[
    str | None, typer.Option(metavar="NAME", help="AWS profile for REF, where it is not that of DEST.")
]
SourceRegion = Annotated[
    str | None, typer.Option(metavar="NAME", help="AWS region of REF, where it is not that of DEST.")
]
SourceUnsigned = Annotated[
    bool, typer.Option("--source-no-sign-request", help="Read REF without credentials, as from a public bucket.")
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source-store-option", metavar="KEY=VALUE", help="Option of the file system of REF's store; repeatable."
    ),
]
DestOption = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--store-option", metavar="KEY=VALUE", help="Option of the file system of DEST's store; repeatable."
    ),
]
