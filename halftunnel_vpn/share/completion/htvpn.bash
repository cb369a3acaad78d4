# Completion of htvpn in bash. The program itself says what may come next.
_htvpn() {
    local line directive=""
    local current="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=()
    [ "$current" != "=" ] || current=""
    while IFS= read -r line; do
        case "$line" in
            :*) directive=$line ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    case "$directive" in
        :files) compopt -o filenames; mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current") ;;
        :directories) compopt -o filenames; mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "$current") ;;
        :commands) mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -c -- "$current") ;;
    esac
}
complete -F _htvpn htvpn
