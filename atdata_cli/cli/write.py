"""``atdata-cli write``: from any source to shards in any store."""

from __future__ import annotations

import dataclasses
import gc
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import typer

from atdata_cli.cli import options as opt
from atdata_cli.cli.imports import import_webdataset
from atdata_cli.cli.output import Output, count, human_bytes
from atdata_cli.cli.places import check_apart, check_dest
from atdata_cli.config import local_index, s3_endpoint_url
from atdata_cli.errors import DataError, ExitCode, NotFoundError, UsageError
from atdata_cli.refs import (
    LOCAL_INDEX,
    MANIFEST,
    as_name,
    basename,
    in_index,
    local_path,
    parent,
    parse,
    redact,
    scheme,
    stem,
)
from atdata_cli.words import totals

if TYPE_CHECKING:
    from atdata_cli.cli.depfile import Depfile
    from atdata_cli.indexes.base import Published
    from atdata_cli.indexes.writing import WrittenEntry
    from atdata_cli.refs import Reference
    from atdata_cli.shards.dividing import Workers
    from atdata_cli.shards.feed import Progress, Rejects, RejectSink
    from atdata_cli.shards.job import WriteOptions
    from atdata_cli.shards.protocols import ShardStore
    from atdata_cli.shards.write import WriteResult
    from atdata_cli.sources.base import Files, InputFile, Source
    from atdata_cli.sources.registry import ReadOptions
    from atdata_cli.stores.base import AbstractDataStore
    from atdata_cli.stores.registry import StoreOptions
    from atdata_cli.stores.seen import SeenInputs

__all__ = ["write"]

_LOCAL_ENGINE = "local"
_SHOWN_REJECTS = 10
_FEW_CORES = 2
_SECRET = re.compile("secret|password|passwd|token|key|credential|connection", re.IGNORECASE)


def write(
    paths: opt.Paths = None,
    from_: opt.From = None,
    name: opt.Name = None,
    max_count: opt.MaxCount = None,
    max_size: opt.MaxSize = None,
    shards: opt.Shards = None,
    shards_multiple_of: opt.ShardsMultipleOf = None,
    key: opt.Key = None,
    fields: opt.Fields = None,
    encoding: opt.EncodingOption = None,
    embed: opt.Embed = None,
    embed_root: opt.EmbedRoot = None,
    join: opt.Join = None,
    on: opt.On = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    schema: opt.Schema = None,
    null: opt.Null = None,
    no_infer: opt.NoInfer = False,
    split: opt.Split = None,
    split_by: opt.SplitBy = None,
    split_from: opt.SplitFrom = None,
    shuffle: opt.Shuffle = False,
    seed: opt.Seed = None,
    compress: opt.Compress = None,
    jobs: opt.Jobs = None,
    engine: opt.EngineOption = "local",
    part: opt.Part = None,
    if_exists: opt.IfExistsOption = opt.IfExists.RESUME,
    prune: opt.Prune = False,
    exit_unchanged: opt.ExitUnchanged = False,
    on_error: opt.OnErrorOption = opt.OnError.FAIL,
    rejects: opt.RejectsFile = None,
    max_errors: opt.MaxErrors = None,
    min_samples: opt.MinSamples = 0,
    allow_empty: opt.AllowEmpty = False,
    files_from: opt.FilesFrom = None,
    files0_from: opt.Files0From = None,
    stdin_from_command: opt.StdinFromCommand = False,
    depfile: opt.Depfile = None,
    depfile_target: opt.DepfileTarget = None,
    description: opt.Description = None,
    tag: opt.Tags = None,
    license_: opt.License = None,
    metadata: opt.Metadata = None,
    index: opt.IndexFile = None,
    endpoint_url: opt.EndpointUrl = None,
    profile: opt.Profile = None,
    region: opt.Region = None,
    store_option: opt.StoreOption = None,
    no_sign_request: opt.ReadUnsigned = False,
    retries: opt.Retries = None,
    timeout: opt.Timeout = None,
    ca_bundle: opt.CaBundle = None,
    dry_run: opt.DryRun = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    no_progress: opt.NoProgress = False,
    color: opt.ColorWhen = opt.Color.AUTO,
) -> None:
    """Shard samples from SOURCEs into DEST, and print the shards' URLs, one a line.

    Shards are plain WebDataset tars with a manifest.json beside them. What is written appears whole or not at all.
    """
    from atdata_cli.shards.job import WriteOptions
    from atdata_cli.sources.registry import ReadOptions

    output = Output(as_json=as_json, quiet=quiet, verbose=verbose, no_progress=no_progress, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    operands = _operands(paths or [], files_from, files0_from, from_command=stdin_from_command)
    reaching = (endpoint_url, profile, region, store_option)
    stores = opt.store_options(*reaching, operand="source", anonymous=no_sign_request)
    reading = ReadOptions(
        kind=from_,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        join=join,
        on=on,
        null=null,
        infer=not no_infer,
        fields=_names(fields),
    )
    writing = WriteOptions(
        name=name or operands.default_name(part),
        encoding=encoding.value if encoding else None,
        key=key,
        fields=_names(fields),
        embed=tuple(embed or ()),
        embed_root=embed_root,
        max_count=max_count,
        max_size=max_size,
        shards=shards,
        shards_multiple_of=shards_multiple_of,
        split=split,
        split_by=split_by,
        split_from=split_from,
        shuffle=shuffle,
        seed=seed,
        compress=compress.value if compress else None,
        on_error=on_error.value,
        max_errors=max_errors,
        min_samples=min_samples,
        allow_empty=allow_empty,
        reading=reading.identity() or None,
    )
    if store_option and not (embed or join):  # the files that rows name may be anywhere
        _check_options_have_a_store([*operands.sources, operands.dest, *([schema] if schema else [])])
    said = {"description": description, "tags": tag, "license_": license_, "metadata": metadata}
    target = _entry(operands.dest)
    if target is None and any(value is not None for value in said.values()):
        raise UsageError(
            "--description, --tag, --license and --metadata are for an entry, @HANDLE/NAME", url=operands.dest
        )
    command = _Write(
        output,
        operands,
        target,
        said,
        stores,
        opt.store_options(*reaching, operand="dest"),
        reading,
        writing,
        jobs,
        engine,
        part,
        index,
        schema,
        rejects,
        if_exists.value,
        dry_run,
        prune,
        exit_unchanged,
        None if dry_run else _depfile(depfile, depfile_target, operands.dest, files_from or files0_from),
    )
    raise typer.Exit(command.run())


@dataclass(frozen=True, slots=True)
class _Operands:
    """What is read, and where it goes.

    Attributes
    ----------
    sources : names as typed; ``-`` alone for standard input or a command.
    dest : folder or URL.
    command : whose output is standard input, if any.
    """

    sources: Sequence[str]
    dest: str
    command: Sequence[str] = ()

    def default_name(self, part: str | None) -> str:
        """The dataset's name unless ``--name`` says another: from the first source.

        Parameters
        ----------
        part : of ``--part``. Parts that have names have sources of their own, so the dataset's name is DEST's.
        """
        if part is not None:
            from atdata_cli.shards.parts import NamedPart, parse_part

            if isinstance(parse_part(part), NamedPart):
                return as_name(basename(self.dest if scheme(self.dest) else os.path.abspath(self.dest)))
        first = self.sources[0] if self.sources else "-"
        if in_index(first) and not os.path.lexists(first):
            return parse(first).name or as_name("")
        if basename(first) == MANIFEST:
            first = parent(first)
        if first == "-":
            return as_name("")
        url = os.path.abspath(first) if not scheme(first) else first
        name = stem(url)
        if name == basename(url) and scheme(url) in ("", "file") and os.path.isfile(local_path(url)):
            name = os.path.splitext(name)[0]  # a folder may be called data.v1
        return as_name(name)


def _operands(
    paths: Sequence[str], files_from: str | None, files0_from: str | None, *, from_command: bool
) -> _Operands:
    if from_command:
        if len(paths) < 2 or files_from or files0_from:
            raise UsageError(
                "--stdin-from-command takes DEST -- CMD ARGS...", hint="write out/ --from jsonl -- zcat x.gz"
            )
        return _Operands(["-"], _dest(paths[0]), paths[1:])
    if files_from or files0_from:
        if files_from and files0_from:
            raise UsageError("--files-from and --files0-from exclude each other")
        if len(paths) != 1:
            raise UsageError("with --files-from the only argument is DEST")
        return _Operands(_listed(files_from or files0_from or "", "\n" if files_from else "\0"), _dest(paths[0]))
    if len(paths) < 2:
        raise UsageError("SOURCE and DEST are needed", hint="for example: atdata-cli write photos/ out/")
    if "-" in paths[:-1] and len(paths) > 2:
        raise UsageError("standard input ('-') is the only SOURCE, or none")
    return _Operands([opt.expand(path, "source") for path in paths[:-1]], _dest(paths[-1]))


def _check_options_have_a_store(places: Sequence[str]) -> None:
    if all(scheme(place) in ("", "file") and (os.path.lexists(place) or not in_index(place)) for place in places):
        raise UsageError("-o, --store-option is for stores with options; files on disk have none")


def _dest(path: str) -> str:
    return check_dest(opt.expand(path, "dest"))


def _listed(path: str, separator: str) -> list[str]:
    from atdata_cli.stores.inputs import StoreFiles

    with StoreFiles().open(path) as reader:
        text = os.fsdecode(reader.read())
    names = [name.rstrip("\r") if separator == "\n" else name for name in text.split(separator)]
    names = [opt.expand(name, "source") for name in names if name]
    if not names:
        raise NotFoundError(
            "the list of sources is empty", url=path, hint="the command that wrote it may have found nothing"
        )
    return names


def _depfile(path: str | None, target: str | None, dest: str, files_from: str | None) -> Depfile | None:
    """What ``--depfile`` is to say, so far."""
    from atdata_cli.cli.depfile import Depfile, local_name

    if path is None:
        if target is not None:
            raise UsageError("--depfile-target is for --depfile FILE")
        return None
    if target is None:
        if scheme(dest) not in ("", "file") or in_index(dest):
            raise UsageError(
                "--depfile: DEST is no local folder, so make cannot see when it was written",
                url=dest,
                hint="--depfile-target FILE names what the rule touches instead",
            )
        target = posixpath.join(local_path(dest), MANIFEST)
    depfile = Depfile(path, target)
    listed = local_name(files_from or "-")
    project = opt.settings().project_file
    for name in (listed, project and os.path.relpath(project)):
        if name:
            depfile.add(name)
    return depfile


def _entry(dest: str) -> Reference | None:
    """The entry that DEST names: ``@HANDLE/NAME``; None if it is a folder or a URL prefix."""
    if not in_index(dest):
        return None
    target = parse(dest)
    if target.kind != "dataset" or target.authority == LOCAL_INDEX:
        raise UsageError(
            "DEST is a folder, a URL prefix or @HANDLE/NAME",
            url=dest,
            hint="write to a folder, then: publish FOLDER @local/NAME" if target.authority == LOCAL_INDEX else None,
        )
    return target


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError("--fields names no field")
    return names


@dataclass
class _Write:
    """One run of the command."""

    output: Output
    operands: _Operands
    entry: Reference | None
    said: Mapping[str, Any]
    stores: StoreOptions
    dest_stores: StoreOptions
    reading: ReadOptions
    writing: WriteOptions
    jobs: int | None
    engine: str
    part: str | None
    index: str | None
    schema: str | None
    rejects_file: str | None
    if_exists: Any
    dry_run: bool
    prune: bool
    exit_unchanged: bool
    depfile: Depfile | None

    def run(self) -> ExitCode:
        """Do it; the exit code."""
        import_webdataset()
        files = self._files()
        self._load_schema(files)
        if self.engine != _LOCAL_ENGINE:
            self._prepare_for_engine()
        if self.entry is not None:
            if self.part is not None:
                raise UsageError("--part needs a store; publish --blobs what is committed", url=self.entry.text)
            return self._write_entry(self.entry, files)
        from atdata_cli.shards.protocols import ShardStore
        from atdata_cli.stores.registry import open_store

        seen = self._seen(files)
        store, prefix = open_store(self.operands.dest, self.dest_stores)
        if not isinstance(store, ShardStore):
            return self._hand_over(self._source(files, seen), store, prefix)
        with self._workers(store) as workers:
            source = self._source(files, seen)
            if self.part is not None:
                return self._write_part(self.part, source, store, prefix, workers)
            return self._write_whole(source, store, prefix, workers, seen)

    def _write_whole(
        self, source: Source, store: ShardStore, prefix: str, workers: Workers, seen: SeenInputs | None
    ) -> ExitCode:
        """All of a dataset; what it wrote."""
        from atdata_cli.shards.write import write

        with self._watched() as (rejects, progress):
            result = write(
                source,
                store,
                prefix,
                self.writing,
                rejects=rejects,
                progress=progress,
                if_exists=self.if_exists,
                dry_run=self.dry_run,
                seen=seen,
                workers=workers,
            )
        if result.status == "unchanged":
            self._touch(result, source, store)
        return self._report(result, rejects, store, pruned=self._pruned(result, store))

    def _prepare_for_engine(self) -> None:
        """Tell the engine's workers, which have other working folders, whole paths, and no secrets."""
        if self.entry is not None:
            raise UsageError("--engine writes to a store; publish --blobs what is there", url=self.entry.text)
        secret = next(filter(_SECRET.search, self.stores.options), None)
        if secret is not None:
            raise UsageError(
                f"-o {secret}: credentials do not travel to the engine's workers",
                hint="set them where the workers run: in their environment, profile or instance role",
            )
        sources = [_whole_path(name) for name in self.operands.sources]
        self.operands = dataclasses.replace(self.operands, sources=sources, dest=_whole_path(self.operands.dest))
        if self.writing.embed_root is not None:
            self.writing = dataclasses.replace(self.writing, embed_root=_whole_path(self.writing.embed_root))

    @contextmanager
    def _workers(self, store: ShardStore) -> Iterator[Workers]:
        from atdata_cli.shards.engines import open_engine
        from atdata_cli.shards.forks import usable_cores
        from atdata_cli.shards.protocols import ConnectingStore
        from atdata_cli.shards.workers import EarlyProcesses, ProcessExecutor

        jobs = usable_cores() if self.jobs is None else self.jobs
        start = partial(ProcessExecutor, preload="atdata_cli.cli.worker")
        few = self.jobs is None and jobs <= _FEW_CORES
        with open_engine(self.engine, jobs, start=start) as workers:
            workers = dataclasses.replace(workers, few=few and workers.remote is None)
            if jobs < 2 or workers.remote is not None or self.dry_run or not isinstance(store, ConnectingStore):
                yield workers
                return
            store.load()
            with EarlyProcesses(jobs, start) as early:
                yield dataclasses.replace(workers, start=early, each=early.each)

    def _write_part(self, text: str, source: Source, store: ShardStore, prefix: str, workers: Workers) -> ExitCode:
        """One part; what it wrote, and what is to be done when all are."""
        from atdata_cli.shards.parts import parse_part
        from atdata_cli.shards.partwrite import write_part

        if self.prune or self.if_exists != "resume":
            raise UsageError("--part goes on with what is there: leave out --prune and --if-exists")
        part = parse_part(text)
        with self._watched() as (rejects, progress):
            result = write_part(
                source,
                store,
                prefix,
                self.writing,
                part,
                rejects=rejects,
                progress=progress,
                dry_run=self.dry_run,
                workers=workers,
            )
        code = self._report(result, rejects, store)
        if not self.dry_run:
            self.output.say(f"when all parts are done: atdata-cli commit {self.operands.dest}")
        return code

    def _write_entry(self, entry: Reference, files: Files) -> ExitCode:
        """Into a PDS, with the entry that holds the blobs."""
        from atdata_cli.cli.said import said
        from atdata_cli.indexes.writing import write_entry

        if self.prune:
            raise UsageError("--prune is for folders: in a PDS nothing is left behind", url=entry.text)
        told = said(files, **self.said)
        source = self._source(files, None)
        with self._watched() as (rejects, progress):
            written = write_entry(
                entry,
                source,
                self.writing,
                said=told,
                if_exists=self.if_exists,
                dry_run=self.dry_run,
                rejects=rejects,
                progress=progress,
            )
        return self._report(written.result, rejects, _EntryPlaces(written), published=written.published)

    @contextmanager
    def _watched(self) -> Iterator[tuple[Rejects, Progress]]:
        """What a run is told to keep up to date; shown while it goes on."""
        from atdata_cli.shards.feed import Progress, Rejects

        with self._reject_sink() as sink:
            rejects = Rejects(skip=self.writing.on_error == "skip", limit=self.writing.max_errors, sink=sink)
            progress = Progress()
            gc.freeze()  # what the imports and the plan made stays: no collection need look at it again
            try:
                with self.output.progress(progress):
                    yield rejects, progress
            except DataError:
                self._list(rejects)
                raise
            except NotFoundError as error:
                error.url = error.url or ", ".join(self.operands.sources)
                raise

    def _touch(self, result: WriteResult, source: Source, store: ShardStore) -> None:
        """Make the manifest newer than what it was made from, or make(1) would run the same rule again and again."""
        if scheme(self.operands.dest) not in ("", "file"):
            return
        path = local_path(store.url(posixpath.join(result.prefix, MANIFEST)))
        with suppress(OSError):
            made = os.stat(path).st_mtime_ns
            read = (self.depfile.newest,) if self.depfile else (_modified(item.url) for item in source.inputs)
            if any(modified > made for modified in read):
                os.utime(path)

    def _pruned(self, result: WriteResult, store: ShardStore) -> int:
        if not self.prune or self.dry_run:
            return 0
        from atdata_cli.shards.destination import Destination

        return len(Destination(store, result.prefix).prune())

    def _files(self) -> Files:
        from atdata_cli.stores.inputs import StoreFiles

        files = StoreFiles(self.stores)
        if self.depfile is not None:
            files.used = self.depfile.add
        if not self.operands.command:
            return files
        from atdata_cli.sources.stream import CommandInput

        return CommandInput(self.operands.command, files)

    def _seen(self, files: Files) -> SeenInputs | None:
        """Takes in the files of the source as they are listed."""
        from atdata_cli.stores.inputs import StoreFiles
        from atdata_cli.stores.seen import SeenInputs

        # Which files rows name is known only when the rows are read.
        if self.dry_run or self.writing.embed or not isinstance(files, StoreFiles):
            return None
        endpoint_url = self.dest_stores.at(self.operands.dest).endpoint_url
        seen = SeenInputs(self.operands.dest, endpoint_url or s3_endpoint_url() or "")
        files.told = seen.see
        return seen

    def _load_schema(self, files: Files) -> None:
        if self.schema is None:
            return
        from atdata_cli.samples.check import RowSchema

        with files.open(self.schema) as reader:
            parsed = RowSchema.parse(reader.read(), url=self.schema)
        self.writing = dataclasses.replace(self.writing, schema=parsed.document)
        self.reading = dataclasses.replace(self.reading, types=parsed.csv_types())

    def _source(self, files: Files, seen: SeenInputs | None) -> Source:
        from atdata_cli.indexes.lookup import source_shards
        from atdata_cli.sources.registry import open_source
        from atdata_cli.stores.inputs import StoreFiles

        for name in self.operands.sources:
            check_apart(name, self.operands.dest)
        indexes = opt.index_options(self.index, self.stores)
        places = files if isinstance(files, StoreFiles) else StoreFiles(self.stores)

        def dataset_shards(name: str) -> Sequence[InputFile] | None:
            if self.depfile is not None and in_index(name) and parse(name).authority == LOCAL_INDEX:
                self.depfile.add(self.index or local_index())  # the name may come to mean another dataset
            shards = source_shards(name, places, indexes, warn=self.output.warn)
            if shards is not None and seen is not None:
                seen.distrust()  # a manifest was looked at, not the shards that it names
            return shards

        source = open_source(self.operands.sources, files, self.reading, dataset_shards=dataset_shards)
        places.told = places.used = None
        if self.depfile is not None:
            self.depfile.write(source, self.writing.embed, self.writing.embed_root)
            for warning in self.depfile.warnings():
                self.output.warn(warning)
            if self.writing.embed and not source.rewindable:
                self.output.warn("the files that rows of a stream name are not in --depfile: name the table as a file")
        return source

    def _hand_over(self, source: Source, store: AbstractDataStore, prefix: str) -> ExitCode:
        """Let a third-party store write: it has no more than the protocol's three methods."""
        from atdata_cli.shards.feed import Progress, Rejects, make_feed

        if self.dry_run:
            raise UsageError("this store cannot plan: it writes shards itself", url=self.operands.dest)
        self.output.warn(
            "this store writes shards itself: there is no manifest, and an interrupted run starts from the beginning"
        )
        rejects = Rejects(skip=self.writing.on_error == "skip", limit=self.writing.max_errors)
        feed = make_feed(source, self.writing, rejects=rejects, progress=Progress())
        feed.prepare()
        self._check(rejects)
        limits = {"maxcount": self.writing.max_count, "maxsize": self.writing.max_size}
        given = {name: value for name, value in limits.items() if value is not None}
        urls = list(store.write_shards(feed.mappings(), prefix=prefix, **given))
        self._check(rejects)
        if self.output.as_json:
            self.output.document(
                {"status": "written", "shards": [{"url": url} for url in urls], "rejects": _first_rejects(rejects)}
            )
        else:
            self.output.data(urls)
        return ExitCode.REJECTED if rejects.count else ExitCode.DONE

    @contextmanager
    def _reject_sink(self) -> Iterator[RejectSink | None]:
        if self.rejects_file is None or self.dry_run:
            yield None
            return
        from atdata_cli.cli.rejects import RejectsWriter

        if os.path.realpath(self.rejects_file) in map(os.path.realpath, self.operands.sources):
            raise UsageError("--rejects would overwrite a SOURCE", url=self.rejects_file)
        with RejectsWriter(self.rejects_file) as writer:
            yield writer

    def _check(self, rejects: Rejects) -> None:
        if rejects.failing:
            self._list(rejects)
            raise rejects.error()

    def _list(self, rejects: Rejects) -> None:
        """Name every reject of a run that fails; a single one is what the error says already."""
        if rejects.failing and rejects.count == 1:
            return
        for reject in rejects.listed:
            self.output.problem(f"{reject.where}: {reject.reason}")

    def _report(
        self,
        result: WriteResult,
        rejects: Rejects,
        store: _Places,
        *,
        published: Published | None = None,
        pruned: int = 0,
    ) -> ExitCode:
        for warning in result.warnings:
            self.output.warn(warning)
        if self.output.as_json:
            document = {**_document(result, store), "rejects": _first_rejects(rejects), "pruned": pruned}
            if self.part is not None:
                document["manifest"] = None  # until all parts are committed
            if published is not None:
                document |= {"manifest": None, "entry": {"uri": published.uri, "status": published.status}}
                if result.status == "planned":
                    from atdata_cli.cli.listing import plain_records

                    document["records"] = plain_records(published.records)
            self.output.document(document)
        else:
            if not self.output.quiet:
                self.output.data([store.url(name) for name, _ in result.shards()])
            self._summarise(result, store)
            if published is not None and result.status == "planned":
                from atdata_cli.cli.listing import record_lines

                for line in "\n".join(record_lines(published.records)).splitlines():
                    self.output.say(line)
            if pruned:
                self.output.say(f"deleted {count(pruned, 'shard')} that the manifest no longer names")
        if result.status == "unchanged":
            return ExitCode.UNCHANGED if self.exit_unchanged else ExitCode.DONE
        if rejects.count:
            self._tell_rejected(rejects)
            return ExitCode.REJECTED
        return ExitCode.DONE

    def _summarise(self, result: WriteResult, store: _Places) -> None:
        manifest = result.manifest
        made = sum(1 for _ in result.shards())
        whole = totals(manifest.samples, made, manifest.bytes)
        # Parts have none until they are committed.
        url = "" if self.part else f", {store.url(posixpath.join(result.prefix, MANIFEST))}"
        if result.status == "planned":
            for line in _plan(result, store):
                self.output.say(line)
        elif result.status == "unchanged":
            self.output.say(f"unchanged, 0 uploaded: {whole}{url}", style="2")
        else:
            self.output.say(f"wrote {whole}{url}", style="32")
            if len(result.stored) < made:
                size = human_bytes(sum(row.bytes for row in result.stored))
                self.output.say(f"{count(len(result.stored), 'shard')} uploaded, {size}; the others were there")
        for name, row in result.shards():
            self.output.detail(f"{row.sha256 or '-'}  {row.samples}  {row.bytes}  {store.url(name)}")

    def _tell_rejected(self, rejects: Rejects) -> None:
        for reject in rejects.listed[:_SHOWN_REJECTS]:
            self.output.say(f"rejected: {reject.where}: {reject.reason}")
        more = rejects.count - _SHOWN_REJECTS
        kept = self.rejects_file is not None and not self.dry_run
        where = f"; all are in {self.rejects_file}" if kept else ""
        rest = f" ({more} not shown{'' if kept else '; --rejects FILE keeps all'})" if more > 0 else ""
        self.output.say(f"{count(rejects.count, 'sample')} rejected{where}{rest}")


def _modified(url: str) -> int:
    """When a local file was changed, in nanoseconds since 1970; 0 for what is no local file."""
    if url == "-" or scheme(url) not in ("", "file"):
        return 0
    return os.stat(local_path(url)).st_mtime_ns


def _whole_path(name: str) -> str:
    """A path from the root of the file system; URLs and names in an index as they are."""
    if name == "-" or scheme(name) or (in_index(name) and not os.path.lexists(name)):
        return name
    return os.path.abspath(name) + ("/" if name.endswith("/") else "")


class _Places(Protocol):
    def url(self, name: str) -> str: ...


class _EntryPlaces:
    """Where the shards of an entry are, by the names that they would have beside a manifest, which it replaces."""

    def __init__(self, written: WrittenEntry) -> None:
        names = [name for name, _ in written.result.shards()]
        self._urls = dict(zip(names, written.urls, strict=False))
        self._entry = written.published.uri

    def url(self, name: str) -> str:
        """Of a shard, or of what says which they are."""
        return self._entry if basename(name) == MANIFEST else self._urls.get(name, f"@{name}")


def _first_rejects(rejects: Rejects) -> list[dict[str, str]]:
    """What was left out first, and why."""
    shown = rejects.listed[:_SHOWN_REJECTS]
    return [{"where": redact(reject.where), "reason": redact(reject.reason)} for reject in shown]


def _plan(result: WriteResult, store: _Places) -> Iterator[str]:
    """What a dry run tells: shards, sizes, overhead, keys, and what ends a shard."""
    manifest = result.manifest
    rows = list(result.shards())
    overhead = 1 - manifest.payload / result.tar_bytes if result.tar_bytes else 0.0
    yield f"would write {count(manifest.samples, 'sample')} in {count(len(rows), 'shard')}:"
    shown = rows if len(rows) <= 12 else [*rows[:10], None, rows[-1]]
    for item in shown:
        if item is None:
            yield f"  … {len(rows) - 11} more"
            continue
        name, row = item
        size = human_bytes(row.bytes)
        yield f"  {store.url(name)}  {row.samples:>8,} samples  {size:>10}  {row.first_key} … {row.last_key}"
    yield (
        f"payload {human_bytes(manifest.payload)}, tars {human_bytes(result.tar_bytes)}: {overhead:.1%} is tar overhead"
    )
    yield f"shards end by {result.limit}" if result.limit else "all samples fit into one shard"


def _document(result: WriteResult, store: _Places) -> dict[str, Any]:
    """The JSON document of a run; ``sha256`` is null in a plan."""
    manifest = result.manifest
    return {
        "status": result.status,
        "name": manifest.name,
        "manifest": store.url(posixpath.join(result.prefix, "manifest.json")),
        "samples": manifest.samples,
        "bytes": manifest.bytes,
        "payload": manifest.payload,
        "rejected": manifest.rejected,
        "uploaded": {"shards": len(result.stored), "bytes": sum(row.bytes for row in result.stored)},
        "limit": result.limit,
        "splits": None if manifest.splits is None else {name: row.samples for name, row in manifest.splits.items()},
        "shards": [
            {
                "url": store.url(name),
                "samples": row.samples,
                "bytes": row.bytes,
                "sha256": row.sha256 or None,
                "first_key": row.first_key,
                "last_key": row.last_key,
            }
            for name, row in result.shards()
        ],
        "warnings": list(result.warnings),
    }
