# bash completion for atdata-cli. Made by completions/generate.py from the program: change that.

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
    [[ -n $1 ]] && IFS=' ' _atdata_cli_offer "$1" s3:// https:// file:/// gs:// az:// hf:// sftp:// at:// @local/
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
        _atdata_cli_offer "$word" write commit inspect resolve copy publish unpublish login logout prune abort stores doctor config --version --help
        return
    fi
    case $command in
        write)
            options='--from --name --max-count --max-size --shards --shards-multiple-of --key --fields --encoding --embed --embed-root --join --on --include --exclude --schema --null --no-infer --split --split-by --split-from --shuffle --seed --compress -j --jobs --engine --part --if-exists --prune --exit-unchanged --on-error --rejects --max-errors --min-samples --allow-empty --files-from --files0-from --stdin-from-command --depfile --depfile-target --description --tag --license --metadata --index --endpoint-url --profile --region -o --store-option --no-sign-request --retries --timeout --ca-bundle -n --dry-run --json -q --quiet -v --verbose --no-progress --color --config --json-events -h --help'
            case $previous in
                --from)
                    _atdata_cli_offer "$word" files tar jsonl csv tsv parquet arrow msgpack
                    return
                    ;;
                --name)
                    :
                    return
                    ;;
                --max-count)
                    :
                    return
                    ;;
                --max-size)
                    _atdata_cli_offer "$word" 256M 512M 1G 2G
                    return
                    ;;
                --shards)
                    :
                    return
                    ;;
                --shards-multiple-of)
                    :
                    return
                    ;;
                --key)
                    :
                    return
                    ;;
                --fields)
                    :
                    return
                    ;;
                --encoding)
                    _atdata_cli_offer "$word" files msgpack
                    return
                    ;;
                --embed)
                    :
                    return
                    ;;
                --embed-root)
                    _atdata_cli_files -d "$word"
                    return
                    ;;
                --join)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --on)
                    :
                    return
                    ;;
                --include)
                    :
                    return
                    ;;
                --exclude)
                    :
                    return
                    ;;
                --schema)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --null)
                    :
                    return
                    ;;
                --split)
                    :
                    return
                    ;;
                --split-by)
                    :
                    return
                    ;;
                --split-from)
                    :
                    return
                    ;;
                --seed)
                    :
                    return
                    ;;
                --compress)
                    _atdata_cli_offer "$word" gz
                    return
                    ;;
                -j|--jobs)
                    :
                    return
                    ;;
                --engine)
                    _atdata_cli_offer "$word" local dask://
                    return
                    ;;
                --part)
                    _atdata_cli_offer "$word" auto 1/2 1/4 1/8
                    return
                    ;;
                --if-exists)
                    _atdata_cli_offer "$word" resume update fail
                    return
                    ;;
                --on-error)
                    _atdata_cli_offer "$word" fail skip
                    return
                    ;;
                --rejects)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --max-errors)
                    :
                    return
                    ;;
                --min-samples)
                    :
                    return
                    ;;
                --files-from)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --files0-from)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --depfile)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --depfile-target)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --description)
                    :
                    return
                    ;;
                --tag)
                    :
                    return
                    ;;
                --license)
                    :
                    return
                    ;;
                --metadata)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --index)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --endpoint-url)
                    :
                    return
                    ;;
                --profile)
                    :
                    return
                    ;;
                --region)
                    :
                    return
                    ;;
                -o|--store-option)
                    :
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        commit)
            options='--endpoint-url --profile --region -o --store-option --retries --timeout --ca-bundle -n --dry-run --json -q --quiet -v --verbose --no-progress --color --config --json-events -h --help'
            case $previous in
                --endpoint-url)
                    :
                    return
                    ;;
                --profile)
                    :
                    return
                    ;;
                --region)
                    :
                    return
                    ;;
                -o|--store-option)
                    :
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        inspect)
            options='--head --key --field --verify -j --jobs --html --index --endpoint-url --profile --region -o --store-option --no-sign-request --retries --timeout --ca-bundle --json -q --quiet -v --verbose --no-progress --color --config --json-events -h --help'
            case $previous in
                --head)
                    :
                    return
                    ;;
                --key)
                    :
                    return
                    ;;
                --field)
                    :
                    return
                    ;;
                -j|--jobs)
                    :
                    return
                    ;;
                --html)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --index)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --endpoint-url)
                    :
                    return
                    ;;
                --profile)
                    :
                    return
                    ;;
                --region)
                    :
                    return
                    ;;
                -o|--store-option)
                    :
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        resolve)
            options='--format -0 --null -o --output --expires --no-sign-request --canonical --check --split --index --endpoint-url --profile --region --store-option --retries --timeout --ca-bundle --json -q --quiet -v --verbose --no-progress --color --config --json-events -h --help'
            case $previous in
                --format)
                    _atdata_cli_offer "$word" lines braces json wds
                    return
                    ;;
                -o|--output)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --expires)
                    _atdata_cli_offer "$word" 15m 1h 12h 7d
                    return
                    ;;
                --split)
                    :
                    return
                    ;;
                --index)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --endpoint-url)
                    :
                    return
                    ;;
                --profile)
                    :
                    return
                    ;;
                --region)
                    :
                    return
                    ;;
                --store-option)
                    :
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        copy)
            options='-j --jobs --if-exists --index --endpoint-url --profile --region -o --store-option --source-endpoint-url --source-profile --source-region --source-no-sign-request --source-store-option --retries --timeout --ca-bundle -n --dry-run --json -q --quiet -v --verbose --no-progress --color --config --json-events -h --help'
            case $previous in
                -j|--jobs)
                    :
                    return
                    ;;
                --if-exists)
                    _atdata_cli_offer "$word" resume fail
                    return
                    ;;
                --index)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --endpoint-url)
                    :
                    return
                    ;;
                --profile)
                    :
                    return
                    ;;
                --region)
                    :
                    return
                    ;;
                -o|--store-option)
                    :
                    return
                    ;;
                --source-endpoint-url)
                    :
                    return
                    ;;
                --source-profile)
                    :
                    return
                    ;;
                --source-region)
                    :
                    return
                    ;;
                --source-store-option)
                    :
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        publish)
            options='--description --tag --license --metadata --schema --split --verify -j --jobs --blobs --allow-local-url --index --endpoint-url --profile --region -o --store-option --exit-unchanged --retries --timeout --ca-bundle -n --dry-run --json -q --quiet -v --verbose --no-progress --color --config --json-events -h --help'
            case $previous in
                --description)
                    :
                    return
                    ;;
                --tag)
                    :
                    return
                    ;;
                --license)
                    :
                    return
                    ;;
                --metadata)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --schema)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --split)
                    :
                    return
                    ;;
                -j|--jobs)
                    :
                    return
                    ;;
                --index)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --endpoint-url)
                    :
                    return
                    ;;
                --profile)
                    :
                    return
                    ;;
                --region)
                    :
                    return
                    ;;
                -o|--store-option)
                    :
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        unpublish)
            options='-y --yes --index --retries --timeout --ca-bundle -n --dry-run --json -q --quiet -v --verbose --color --config --json-events -h --help'
            case $previous in
                --index)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        login)
            options='--pds --password-stdin --password-file --password-command --retries --timeout --ca-bundle --json -q --quiet -v --verbose --color --config --json-events -h --help'
            case $previous in
                --pds)
                    :
                    return
                    ;;
                --password-file)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --password-command)
                    :
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        logout)
            options='--retries --timeout --ca-bundle --json -q --quiet -v --verbose --color --config --json-events -h --help'
            case $previous in
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        prune)
            options='--endpoint-url --profile --region -o --store-option --retries --timeout --ca-bundle -n --dry-run --json -q --quiet -v --verbose --no-progress --color --config --json-events -h --help'
            case $previous in
                --endpoint-url)
                    :
                    return
                    ;;
                --profile)
                    :
                    return
                    ;;
                --region)
                    :
                    return
                    ;;
                -o|--store-option)
                    :
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        abort)
            options='--endpoint-url --profile --region -o --store-option --retries --timeout --ca-bundle -n --dry-run --json -q --quiet -v --verbose --no-progress --color --config --json-events -h --help'
            case $previous in
                --endpoint-url)
                    :
                    return
                    ;;
                --profile)
                    :
                    return
                    ;;
                --region)
                    :
                    return
                    ;;
                -o|--store-option)
                    :
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        stores)
            options='--json -q --quiet -v --verbose --color --config --json-events -h --help'
            case $previous in
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        doctor)
            options='--read-only --no-sign-request --endpoint-url --profile --region -o --store-option --retries --timeout --ca-bundle --json -q --quiet -v --verbose --color --config --json-events -h --help'
            case $previous in
                --endpoint-url)
                    :
                    return
                    ;;
                --profile)
                    :
                    return
                    ;;
                --region)
                    :
                    return
                    ;;
                -o|--store-option)
                    :
                    return
                    ;;
                --retries)
                    :
                    return
                    ;;
                --timeout)
                    :
                    return
                    ;;
                --ca-bundle)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        config)
            options='--json -q --quiet -v --verbose --color --config --json-events -h --help'
            case $previous in
                --color)
                    _atdata_cli_offer "$word" auto always never
                    return
                    ;;
                --config)
                    _atdata_cli_files -f "$word"
                    return
                    ;;
            esac
            ;;
        *)
            return
            ;;
    esac
    if [[ $word == -* ]]; then
        _atdata_cli_offer "$word" $options
        return
    fi
    case $command in
        write) _atdata_cli_places "$word" ;;
        commit) _atdata_cli_places "$word" ;;
        inspect) _atdata_cli_places "$word" ;;
        resolve) _atdata_cli_places "$word" ;;
        copy) _atdata_cli_places "$word" ;;
        publish) if _atdata_cli_has_operand "$before" --description --tag --license --metadata --schema --split -j --jobs --index --endpoint-url --profile --region -o --store-option --retries --timeout --ca-bundle --color --config; then _atdata_cli_names "$word"; else _atdata_cli_places "$word"; fi ;;
        unpublish) _atdata_cli_names "$word" ;;
        prune) _atdata_cli_places "$word" ;;
        abort) _atdata_cli_places "$word" ;;
        doctor) _atdata_cli_places "$word" ;;
    esac
}

complete -F _atdata_cli atdata-cli
