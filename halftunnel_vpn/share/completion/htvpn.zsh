#compdef htvpn
# Completion of htvpn in zsh. The program itself says what may come next.
_htvpn() {
    local line directive=""
    local -a found
    while IFS= read -r line; do
        case "$line" in
            :*) directive=$line ;;
            *$'\t'*) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
            *) found+=("${line//:/\\:}") ;;
        esac
    done < <("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    local answer=1
    if (( ${#found} )); then
        _describe -V htvpn found && answer=0
    fi
    case "$directive" in
        :files) _files && answer=0 ;;
        :directories) _files -/ && answer=0 ;;
        :commands) _command_names -e && answer=0 ;;
    esac
    return answer
}
if [ "$funcstack[1]" = "_htvpn" ]; then
    _htvpn "$@"
else
    compdef _htvpn htvpn
fi
