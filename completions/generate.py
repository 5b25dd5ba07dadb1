"""Make the completions of bash, zsh and fish from the program: ``python -m completions.generate [--check]``.

They are static: no Python starts at a TAB. What they look up they look up in files: the datasets of the local index with
sqlite3, where it is installed, named stores and buckets in the configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from man.catalog import Argument, Command, Option, commands, root

HERE = Path(__file__).parent

SCHEMES = ("s3://", "https://", "file:///", "gs://", "az://", "hf://", "sftp://", "at://", "@local/")
"""What operands may begin with, besides paths."""

_FILES = {"FILE", "SOURCE... DEST"}
_FOLDERS = {"DIR"}
_PLACES = {"REF", "DEST", "URL", "SOURCE... DEST"}
_NAMES = {"TARGET"}
_VALUES = {
    # Values that are not choices for the parser, because there are more.
    "from": ("files", "tar", "jsonl", "csv", "tsv", "parquet", "arrow", "msgpack"),
    "max-size": ("256M", "512M", "1G", "2G"),
    "expires": ("15m", "1h", "12h", "7d"),
    "split": (),
    "engine": ("local", "dask://"),
    "part": ("auto", "1/2", "1/4", "1/8"),
}


def main(arguments: Sequence[str]) -> int:
    """Write the files, or say which are stale."""
    made: dict[str, Callable[[], Iterator[str]]] = {
        "atdata-cli.bash": _bash,
        "_atdata-cli": _zsh,
        "atdata-cli.fish": _fish,
    }
    texts = {name: "".join(make()) for name, make in made.items()}
    stale = [name for name, text in texts.items() if _read(HERE / name) != text]
    if "--check" in arguments:
        if stale:
            print(
                f"completions/: not what the program says: {', '.join(stale)}; run `make docs` and commit",
                file=sys.stderr,
            )
        return int(bool(stale))
    for name in stale:
        (HERE / name).write_text(texts[name], encoding="utf-8")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def values(option: Option) -> tuple[str, ...]:
    """What can be said of the values of an option."""
    return option.choices or _VALUES.get(option.long, ())


def places_of(arguments: Sequence[Argument]) -> tuple[bool, bool]:
    """Whether a command's operands are places, and whether the last one is a name in an index."""
    return any(one.name in _PLACES for one in arguments), any(one.name in _NAMES for one in arguments)


def kind(option: Option) -> str:
    """``flag``, ``values``, ``file``, ``folder``, or ``any``."""
    if option.value is None:
        return "flag"
    if values(option):
        return "values"
    if option.value in _FILES:
        return "file"
    return "folder" if option.value in _FOLDERS else "any"


# -- bash

_BASH_HEAD = r"""# bash completion for atdata-cli. Made by completions/generate.py from the program: change that.

# The word under the cursor, whole: readline breaks words at ":" and "=", which URLs hold.
_atdata_cli_word() {
    local line=${COMP_LINE:0:COMP_POINT}
    [[ $line == *[[:space:]] ]] && { REPLY=; return; }
    REPLY=${line##*[[:space:]]}
}

# Offer what begins with the word, without the part of it that readline keeps.
_atdata_cli_offer() {
    local word=$1 kept='' breaks=${COMP_WORDBREAKS//[^:=]/} character one
    shift
    for ((one = 0; one < ${#breaks}; one++)); do
        character=${breaks:one:1}
        [[ $word == *"$character"* ]] && local head=${word%"$character"*}$character && ((${#head} > ${#kept})) && kept=$head
    done
    local choice
    for choice; do
        [[ $choice == "$word"* ]] && COMPREPLY+=("${choice#"$kept"}")
    done
    [[ ${COMPREPLY[*]} == *[:/=] ]] && compopt -o nospace 2>/dev/null
    return 0
}

_atdata_cli_files() {
    local IFS=$'\n'
    local found=($(compgen "$1" -- "$2"))
    ((${#found[@]})) || return 0
    # Readline's way with names of files would put a backslash before the colon of a URL.
    if ((${#COMPREPLY[@]})); then
        COMPREPLY+=($(printf '%q\n' "${found[@]}"))
    else
        compopt -o filenames 2>/dev/null
        COMPREPLY=("${found[@]}")
    fi
}

# Datasets of the local index, named stores and buckets of the configuration: read, never asked of a server.
_atdata_cli_known() {
    local index=${ATDATA_INDEX:-~/.atdata/index.db} config=${ATDATA_CLI_CONFIG:-${XDG_CONFIG_HOME:-~/.config}/atdata-cli/config.toml}
    if [[ $1 == @* && -f $index ]] && command -v sqlite3 >/dev/null; then
        sqlite3 -readonly "$index" "SELECT DISTINCT '@local/' || name FROM labels ORDER BY 1 LIMIT 500" 2>/dev/null
    fi
    if [[ -f $config ]]; then
        sed -n -e 's/^\[stores\.\([A-Za-z0-9-]*\)\].*/\1:/p' -e 's/^url *= *"\(s3:\/\/[^/"]*\).*/\1\//p' "$config" 2>/dev/null
    fi
}

_atdata_cli_places() {
    local IFS=$'\n'
    _atdata_cli_offer "$1" $(_atdata_cli_known "$1")
    [[ -n $1 ]] && IFS=' ' _atdata_cli_offer "$1" %SCHEMES%
    [[ $1 == *:* || $1 == @* ]] || _atdata_cli_files -f "$1"
}

# Names in the local index, and the beginning of a new one.
_atdata_cli_names() {
    local IFS=$'\n'
    _atdata_cli_offer "$1" $(_atdata_cli_known @ | grep '^@') @local/
}

# Whether there is an operand before the word: the line up to there, and the options that take a value.
_atdata_cli_has_operand() {
    local words one value='' takes=" ${*:2} "
    read -ra words <<< "$1"
    for one in "${words[@]:2}"; do
        if [[ $value ]]; then
            value=
        elif [[ $takes == *" $one "* ]]; then
            value=1
        elif [[ $one != -* ]]; then
            return 0
        fi
    done
    return 1
}

_atdata_cli() {
    COMPREPLY=()
    local REPLY word previous command=${COMP_WORDS[1]} options
    _atdata_cli_word
    word=$REPLY
    local before=${COMP_LINE:0:COMP_POINT}
    before=${before%"$word"}
    before=${before%"${before##*[![:space:]]}"}
    previous=${before##*[[:space:]]}
    if [[ $word == --*=* ]]; then
        previous=${word%%=*}
        word=${word#*=}
    elif [[ $previous == atdata-cli || $previous == */atdata-cli ]]; then
        _atdata_cli_offer "$word" %COMMANDS% %ROOT%
        return
    fi
    case $command in
"""

_BASH_TAIL = r"""        *)
            return
            ;;
    esac
    if [[ $word == -* ]]; then
        _atdata_cli_offer "$word" $options
        return
    fi
"""


def _bash() -> Iterator[str]:
    every = commands()
    names = " ".join(command.name for command in every)
    head = _BASH_HEAD.replace("%COMMANDS%", names).replace("%ROOT%", " ".join(_all_names(root().options)))
    yield head.replace("%SCHEMES%", " ".join(SCHEMES))
    for command in every:
        yield f"        {command.name})\n            options='{' '.join(_all_names(command.options))}'\n"
        yield "            case $previous in\n"
        for option in command.options:
            yield from _bash_value(option)
        yield "            esac\n            ;;\n"
    yield _BASH_TAIL
    yield "    case $command in\n"
    for command in every:
        action = _bash_operands(command)
        if action:
            yield f"        {command.name}) {action} ;;\n"
    yield "    esac\n}\n\ncomplete -F _atdata_cli atdata-cli\n"


def _all_names(options: Sequence[Option]) -> list[str]:
    return [name for option in options for name in option.names]


def _bash_value(option: Option) -> Iterator[str]:
    actions = {
        "values": f'_atdata_cli_offer "$word" {" ".join(values(option))}',
        "file": '_atdata_cli_files -f "$word"',
        "folder": '_atdata_cli_files -d "$word"',
        "any": ":",
    }
    if kind(option) != "flag":
        yield f"                {'|'.join(option.names)})\n                    {actions[kind(option)]}\n"
        yield "                    return\n                    ;;\n"


def _bash_operands(command: Command) -> str:
    places, names = places_of(command.arguments)
    if places and names:
        had = f'_atdata_cli_has_operand "$before" {" ".join(_with_value(command.options))}'
        return f'if {had}; then _atdata_cli_names "$word"; else _atdata_cli_places "$word"; fi'
    return '_atdata_cli_places "$word"' if places else '_atdata_cli_names "$word"' if names else ""


def _with_value(options: Sequence[Option]) -> list[str]:
    """Names of the options that take a value, which is no operand."""
    return _all_names([option for option in options if kind(option) != "flag"])


# -- zsh

_ZSH_HEAD = r"""#compdef atdata-cli
# zsh completion for atdata-cli. Made by completions/generate.py from the program: change that.

# Paths, schemes, datasets of the local index, named stores: read from files, never asked of a server.
_atdata_cli_places() {
    local index=${ATDATA_INDEX:-$HOME/.atdata/index.db} ret=1
    local config=${ATDATA_CLI_CONFIG:-${XDG_CONFIG_HOME:-$HOME/.config}/atdata-cli/config.toml}
    local -a known
    if [[ $PREFIX == @* && -f $index ]] && (( $+commands[sqlite3] )); then
        known+=(${(f)"$(sqlite3 -readonly $index "SELECT DISTINCT '@local/' || name FROM labels ORDER BY 1 LIMIT 500" 2>/dev/null)"})
    fi
    if [[ -f $config ]]; then
        known+=(${(f)"$(sed -n -e 's/^\[stores\.\([A-Za-z0-9-]*\)\].*/\1:/p' -e 's/^url *= *"\(s3:\/\/[^/"]*\).*/\1\//p' $config 2>/dev/null)"})
    fi
    (( $#known )) && compadd -S '' -a known && ret=0
    [[ -n $PREFIX ]] && compadd -S '' -- %SCHEMES% && ret=0
    [[ $PREFIX == *:* || $PREFIX == @* ]] || { _files && ret=0 }
    return ret
}

# Names in the local index, and the beginning of a new one.
_atdata_cli_names() {
    local index=${ATDATA_INDEX:-$HOME/.atdata/index.db} ret=1
    if [[ -f $index ]] && (( $+commands[sqlite3] )); then
        local -a names=(${(f)"$(sqlite3 -readonly $index "SELECT DISTINCT '@local/' || name FROM labels ORDER BY 1 LIMIT 500" 2>/dev/null)"})
        (( $#names )) && compadd -a names && ret=0
    fi
    compadd -S '' -- @local/ && ret=0
    return ret
}

_atdata_cli() {
    local curcontext=$curcontext state line ret=1
    typeset -A opt_args
    _arguments -C %ROOT% '1:command:->command' '*::operand:->operand' && ret=0
    case $state in
        command)
            local -a commands=(
"""


def _zsh() -> Iterator[str]:
    options = " ".join(f"'{name}[{_zsh_text(one.help)}]'" for one in root().options for name in one.names)
    yield _ZSH_HEAD.replace("%SCHEMES%", " ".join(SCHEMES)).replace("%ROOT%", options)
    every = commands()
    for command in every:
        yield f"                '{command.name}:{_zsh_text(command.summary)}'\n"
    yield "            )\n            _describe -t commands command commands && ret=0\n            ;;\n"
    yield "        operand)\n            curcontext=${curcontext%:*:*}:atdata-cli-$line[1]:\n            case $line[1] in\n"
    for command in every:
        yield f"                {command.name})\n                    _arguments -S \\\n"
        rows = [row for option in command.options for row in _zsh_option(option)]
        rows += [_zsh_operand(one, number) for number, one in enumerate(command.arguments, 1)]
        yield " \\\n".join(f"                        {row}" for row in rows)
        yield " && ret=0\n                    ;;\n"
    yield '            esac\n            ;;\n    esac\n    return ret\n}\n\n_atdata_cli "$@"\n'


def _zsh_text(words: str) -> str:
    plain = words.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    return plain.replace("'", "'\\''")


def _zsh_option(option: Option) -> Iterator[str]:
    action = {
        "values": f":{_zsh_text(option.value or '')}:({' '.join(map(_zsh_text, values(option)))})",
        "file": f":{_zsh_text(option.value or '')}:_files",
        "folder": f":{_zsh_text(option.value or '')}:_files -/",
        "any": f":{_zsh_text(option.value or '')}: ",
        "flag": "",
    }[kind(option)]
    others = "*" if option.repeatable else f"({' '.join(option.names)})"
    for name in option.names:
        takes = "=" if action and name.startswith("--") else "+" if action else ""
        yield f"'{others}{name}{takes}[{_zsh_text(option.help)}]{action}'"


def _zsh_operand(argument: Argument, number: int) -> str:
    where = "*" if argument.many else str(number)
    places, names = places_of([argument])
    action = "_atdata_cli_places" if places else "_atdata_cli_names" if names else " "
    optional = "" if argument.required or argument.many else ":"
    return f"'{where}:{optional}{_zsh_text(argument.name)}:{action}'"


# -- fish

_FISH_HEAD = r"""# fish completion for atdata-cli. Made by completions/generate.py from the program: change that.

function __atdata_cli_is -d 'Whether this is the line of a command'
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test "$words[2]" = "$argv[1]"
end

function __atdata_cli_begins -d 'Whether no command is named yet'
    test (count (commandline -opc)) -eq 1
end

function __atdata_cli_places -d 'Schemes, datasets of the local index, named stores: read from files'
    set -l word (commandline -ct)
    set -l index (test -n "$ATDATA_INDEX"; and echo $ATDATA_INDEX; or echo ~/.atdata/index.db)
    set -l home (test -n "$XDG_CONFIG_HOME"; and echo $XDG_CONFIG_HOME; or echo ~/.config)
    set -l config (test -n "$ATDATA_CLI_CONFIG"; and echo $ATDATA_CLI_CONFIG; or echo $home/atdata-cli/config.toml)
    if string match -q '@*' -- $word; and test -f $index; and type -q sqlite3
        sqlite3 -readonly $index "SELECT DISTINCT '@local/' || name FROM labels ORDER BY 1 LIMIT 500" 2>/dev/null
    end
    if test -f $config
        sed -n -e 's/^\[stores\.\([A-Za-z0-9-]*\)\].*/\1:/p' -e 's/^url *= *"\(s3:\/\/[^/"]*\).*/\1\//p' $config 2>/dev/null
    end
    test -n "$word"; and printf '%s\n' %SCHEMES%
    string match -q -r '^@|:' -- $word; or __fish_complete_path $word
end

function __atdata_cli_names -d 'Names in the local index, and the beginning of a new one'
    set -l index (test -n "$ATDATA_INDEX"; and echo $ATDATA_INDEX; or echo ~/.atdata/index.db)
    if test -f $index; and type -q sqlite3
        sqlite3 -readonly $index "SELECT DISTINCT '@local/' || name FROM labels ORDER BY 1 LIMIT 500" 2>/dev/null
    end
    echo @local/
end

function __atdata_cli_has_operand -d 'Whether there is an operand before the word; the arguments are options that take a value'
    set -l words (commandline -opc)
    set -l value
    for word in $words[3..]
        if test -n "$value"
            set value
        else if contains -- $word $argv
            set value 1
        else if not string match -q -- '-*' $word
            return 0
        end
    end
    return 1
end

complete -c atdata-cli -n __atdata_cli_begins -f
"""


def _fish() -> Iterator[str]:
    yield _FISH_HEAD.replace("%SCHEMES%", " ".join(SCHEMES))
    for option in root().options:
        yield _fish_option(option, "__atdata_cli_begins")
    for command in commands():
        yield f"complete -c atdata-cli -n __atdata_cli_begins -a {command.name} -d {_fish_text(command.summary)}\n"
        condition = f"'__atdata_cli_is {command.name}'"
        places, names = places_of(command.arguments)
        had = f"; and {{}}__atdata_cli_has_operand {' '.join(_with_value(command.options))}" if places and names else ""
        if places:
            yield _fish_operand(command.name + had.format("not "), "places")
        if names:
            yield _fish_operand(command.name + had.format(""), "names")
        if not (places or names):
            yield f"complete -c atdata-cli -n {condition} -f\n"
        for option in command.options:
            yield _fish_option(option, condition)


def _fish_operand(line: str, action: str) -> str:
    return f"complete -c atdata-cli -n '__atdata_cli_is {line}' -f -a '(__atdata_cli_{action})'\n"


def _fish_text(words: str) -> str:
    return "'" + words.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_option(option: Option, condition: str) -> str:
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
    takes = {
        "values": f" -x -a '{' '.join(values(option))}'",
        "file": " -r -F",
        "folder": " -x -a '(__fish_complete_directories)'",
        "any": " -x",
        "flag": "",
    }[kind(option)]
    return f"complete -c atdata-cli -n {condition} {names}{takes} -d {_fish_text(option.help)}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
