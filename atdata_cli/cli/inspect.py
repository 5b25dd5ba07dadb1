"""``atdata-cli inspect``: what a dataset holds, one of its samples, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from atdata_cli.cli.choices import Color
from atdata_cli.cli.describe import as_json, as_member_json, short, short_member
from atdata_cli.cli.given import index_options, store_options, use_network
from atdata_cli.cli.listing import entry_document, entry_rows, print_index
from atdata_cli.cli.output import Output, count, human_bytes, print_bytes
from atdata_cli.errors import ExitCode, NotFoundError, UsageError
from atdata_cli.refs import parse, printable, redact
from atdata_cli.samples.describe import described_kind, described_range, described_schema
from atdata_cli.words import totals

if TYPE_CHECKING:
    from atdata_cli.cli import options as opt
    from atdata_cli.indexes.base import Entry
    from atdata_cli.indexes.registry import IndexOptions
    from atdata_cli.shards.problems import Problem
    from atdata_cli.shards.reader import Located
    from atdata_cli.shards.scan import DatasetInfo, ShardInfo
    from atdata_cli.shards.verify import VerifyReport
    from atdata_cli.sources.base import Files, Sample

__all__ = ["FIELD_COLUMNS", "SHARD_COLUMNS", "field_rows", "inspect", "middle_cut", "shard_row", "summary"]

FIELD_COLUMNS = ("field", "kind", "samples", "range", "schema", "example")
SHARD_COLUMNS = ("shard", "samples", "size", "keys")

_LONGEST_KEY = 60


def inspect(
    ref: opt.Reference,
    head: opt.Head = None,
    key: opt.SampleKey = None,
    field: opt.SampleField = None,
    verify: opt.Verify = False,
    jobs: opt.Jobs = None,
    html: opt.Html = None,
    index: opt.IndexFile = None,
    endpoint_url: opt.EndpointUrl = None,
    profile: opt.Profile = None,
    region: opt.Region = None,
    store_option: opt.StoreOption = None,
    no_sign_request: opt.NoSignRequest = False,
    retries: opt.Retries = None,
    timeout: opt.Timeout = None,
    ca_bundle: opt.CaBundle = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    no_progress: opt.NoProgress = False,
    color: opt.ColorWhen = Color.AUTO,
) -> None:
    """Show what a dataset holds: shards, samples, sizes, fields, schema. @local lists the local index.

    With a manifest it answers at once; without one it reads the tars' headers. --verify reads every byte.
    """
    from atdata_cli.indexes.lookup import lookup
    from atdata_cli.shards.scan import find_sample, first_samples
    from atdata_cli.shards.scan import inspect as look
    from atdata_cli.stores.inputs import StoreFiles

    if field is not None:
        _check_field(key, json=json)
    if head is not None or key is not None:
        _check_alone(verify=verify, html=html)
    write_report = _page_writer(html, as_json=json)
    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=no_progress, color=color)
    use_network(retries, timeout, ca_bundle)
    stores = store_options(endpoint_url, profile, region, store_option, anonymous=no_sign_request)
    indexes = index_options(index, stores)
    if parse(ref).kind == "index":
        _list_index(output, ref, indexes, alone=not (head or key is not None or verify or html is not None))
        return
    files = StoreFiles(stores)
    found = lookup(ref, files, indexes)
    located = found.located
    for warning in found.warnings:
        output.warn(warning)
    if key is not None:
        _show_sample(output, find_sample(located, files, key), field)
        return
    if head is not None:
        _print_samples(output, first_samples(located, files, head))
        return
    checked = _verify(output, located, files, jobs) if verify else None
    if checked is None or html is not None:
        info = look(located, files, jobs=jobs)
        if html is not None and write_report is not None:
            write_report(info, located, files, html, problems=checked.problems if checked else None)
            if html != "-":
                output.say(f"wrote {html}")
        if checked is None and (html is None or json):
            _print_dataset(output, info, found.entry)
    if checked is not None and checked.problems:
        # What could not be read is not wrong for that: tell why, as any command does.
        import typer

        raise checked.failure or typer.Exit(ExitCode.INTEGRITY)


def _verify(output: Output, located: Located, files: Files, jobs: int | None) -> VerifyReport:
    """Check every byte, and say what is wrong: one problem a line, or one document."""
    from atdata_cli.shards.transfer import TransferProgress
    from atdata_cli.shards.verify import verify

    progress = TransferProgress(activity="verifying")
    with output.progress(progress):
        report = verify(located, files, jobs=jobs, progress=progress)
    whole = totals(report.samples, report.shards, report.bytes)
    if output.as_json:
        document = {"url": redact(located.url), "samples": report.samples, "shards": report.shards}
        problems = [asdict(problem) | {"shard": redact(problem.shard)} for problem in report.problems]
        output.document(document | {"bytes": report.bytes, "problems": problems})
    else:
        output.data([_problem_line(problem) for problem in report.problems])
    if report.problems:
        output.problem(f"{count(len(report.problems), 'problem')} in {whole}")
        if any(problem.kind == "split-sample" for problem in report.problems):
            output.say("a sample's members have to stand together: pack the tar sorted by name (tar --sort=name)")
    else:
        output.say(f"verified {whole}: every byte as it should be", style="32")
    return report


def _problem_line(problem: Problem) -> str:
    """``kind: shard: key at byte N: detail``."""
    where = [printable(redact(problem.shard))]
    if problem.key is not None:
        where.append(printable(problem.key))
    at = "" if problem.offset is None else f" at byte {problem.offset}"
    return f"{problem.kind}: {': '.join(where)}{at}: {printable(problem.detail)}"


def _list_index(output: Output, ref: str, indexes: IndexOptions, *, alone: bool) -> None:
    """What is in a whole index."""
    if not alone:
        raise UsageError("this is a whole index: it is only listed", url=ref, hint=f"a dataset in it is {ref}/NAME")
    print_index(output, parse(ref), indexes)


def _show_sample(output: Output, sample: Sample, field: str | None) -> None:
    if field is None:
        _print_samples(output, [sample])
    else:
        _write_field(sample, field)


def _check_field(key: str | None, *, json: bool) -> None:
    if key is None:
        raise UsageError("--field needs --key KEY")
    if json:
        raise UsageError(
            "--field writes bytes as they are, --json a document", hint="--key KEY --json has all fields of a sample"
        )


def _check_alone(*, verify: bool, html: str | None) -> None:
    if verify or html is not None:
        option = "--verify" if verify else "--html"
        raise UsageError(f"{option} is about the whole dataset: it goes without --head and --key")


def _page_writer(html: str | None, *, as_json: bool) -> Callable[..., None] | None:
    """What writes the page, if one is asked for; before anything is read, as its packages may be missing."""
    if html is None:
        return None
    if html == "-" and as_json:
        raise UsageError("--html - and --json both want standard output")
    from atdata_cli.report.page import render, write_report

    def print_report(info: DatasetInfo, located: Located, files: Files, _: str, *, problems: Sequence[Problem]) -> None:
        print_bytes(render(info, located, files, problems=problems).encode("utf-8"))

    return print_report if html == "-" else write_report


def _write_field(sample: Sample, field: str) -> None:
    """One field to stdout, byte for byte: of a packed sample text as UTF-8, bytes as they are, the rest as JSON."""
    from atdata_cli.samples.codec import dump_json
    from atdata_cli.shards.scan import values
    from atdata_cli.sources.base import content

    found = values(sample)
    if field not in found:
        raise NotFoundError(f"the sample {sample.key!r} has no field {field!r}", hint="it has " + ", ".join(found))
    value = found[field]
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
    elif hasattr(value, "open") or isinstance(value, bytes):
        data = content(value)
    else:
        data = dump_json(value) + b"\n"
    print_bytes(data)


def _print_samples(output: Output, samples: Iterable[Sample]) -> None:
    """Samples, one after another; with ``--json`` one document with all."""
    from atdata_cli.shards.scan import is_packed, values

    documents = []
    for sample in samples:
        packed = is_packed(sample)
        found = values(sample)
        if output.as_json:
            fields = {name: as_json(v) if packed else as_member_json(name, v) for name, v in found.items()}
            documents.append({"key": sample.key, "fields": fields})
            continue
        lines = [printable(sample.key)]
        for name, value in found.items():
            lines.append(f"  {printable(name):<16} {short(value) if packed else short_member(name, value)}")
        output.data(lines)
    if output.as_json:
        output.document({"samples": documents})


def _print_dataset(output: Output, info: DatasetInfo, entry: Entry | None = None) -> None:
    if output.as_json:
        output.document(_document(info) | ({} if entry is None else {"entry": entry_document(entry)}))
    elif output.rich_stdout:
        from atdata_cli.cli.views import show_dataset

        show_dataset(info, entry)
    else:
        output.data(list(_plain(info, entry)))


def summary(info: DatasetInfo) -> Iterator[tuple[str, str]]:
    """What is said of a dataset as a whole: (label, text)."""
    if info.name:
        yield "name", info.name
    yield "samples", f"{info.samples:,}"
    yield "shards", f"{len(info.shards):,}"
    yield "size", f"{human_bytes(info.bytes)} ({human_bytes(info.payload)} of payload)"
    if info.overhead is not None:
        yield "tar overhead", f"{info.overhead:.1%}"
    yield "encoding", info.encoding + (f", {info.compression}" if info.compression else "")
    for split, samples in (info.splits or {}).items():
        yield f"split {split}", f"{samples:,} samples"
    if info.rejected:
        yield "rejected", f"{info.rejected:,} samples were left out when it was written"
    if info.skipped:
        yield "skipped", count(info.skipped, "member") + " outside of samples"
    if info.scanned:
        yield "manifest", "none: counted from the tars' headers"


def field_rows(info: DatasetInfo) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Of each field what :data:`FIELD_COLUMNS` names."""
    for name, known in info.fields.items():
        yield (
            printable(name),
            described_kind(known),
            f"{known.get('samples', 0):,}",
            described_range(known),
            printable(described_schema(name, info.schema)),
            _example(info, name, known),
        )


def _example(info: DatasetInfo, name: str, known: Mapping[str, Any]) -> str:
    if "example" not in known:
        return ""
    return short(known["example"]) if info.encoding == "msgpack" else short_member(name, known["example"])


def _plain(info: DatasetInfo, entry: Entry | None) -> Iterator[str]:
    yield printable(redact(info.url))
    for label, text in (*summary(info), *entry_rows(entry)):
        yield f"{label:<14}{printable(text)}"
    yield ""
    yield from _columns([FIELD_COLUMNS, *field_rows(info)])
    yield ""
    rows = map(shard_row, info.shards)
    yield from _columns([SHARD_COLUMNS, *rows])


def shard_row(shard: ShardInfo) -> tuple[str, str, str, str]:
    """Of a shard what :data:`SHARD_COLUMNS` names."""
    return printable(redact(shard.url)), f"{shard.samples:,}", human_bytes(shard.bytes), _key_range(shard)


def _key_range(shard: ShardInfo) -> str:
    """First and last key of a shard."""
    first, last = (middle_cut(printable(key), _LONGEST_KEY) for key in (shard.first_key, shard.last_key))
    return first if first == last or not last else f"{first} … {last}"


def middle_cut(name: str, longest: int) -> str:
    """A name of at most *longest* characters: what is too long loses its middle."""
    kept = longest - 1
    return name if len(name) <= longest else f"{name[: kept // 2]}…{name[-(kept - kept // 2) :]}"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _document(info: DatasetInfo) -> dict[str, Any]:
    # Not copied: an example may be a part of an open file.
    document = {part.name: getattr(info, part.name) for part in fields(info)}
    document["url"] = redact(info.url)
    document["shards"] = [asdict(shard) for shard in info.shards]
    document["fields"] = {name: dict(known) for name, known in info.fields.items()}
    for name, known in document["fields"].items():
        if "example" in known:
            known["example"] = (as_json if info.encoding == "msgpack" else partial(as_member_json, name))(
                known["example"]
            )
    return document
