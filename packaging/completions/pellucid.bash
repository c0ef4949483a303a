# bash completion for pellucid(1). The program itself knows what may follow.
_pellucid() {
    local -a words=()
    local i word join= lines
    # bash cuts words at '=' (COMP_WORDBREAKS); the program wants them whole.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((${#words[@]})) && [[ $join || $word == = ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        join=
        [[ $word == = ]] && join=1
    done
    lines=$("${1/#\~/$HOME}" --complete "${words[@]}" 2>/dev/null)
    COMPREPLY=()
    [[ $lines ]] || return 0
    if [[ $lines == :files ]]; then
        compopt -o default
        return 0
    fi
    local before=
    [[ ${words[-1]} == --*=* ]] && before=${words[-1]%%=*}=
    while IFS=$'\t' read -r word _; do
        COMPREPLY+=("${word#"$before"}")
    done <<<"$lines"
}
complete -F _pellucid pellucid
