# fish completion for pellucid(1). The program itself knows what may follow.
function __pellucid_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines ($words[1] --complete $words[2..-1] 2>/dev/null)
    if test "$lines" = :files
        set -l before (string match -r -- '^--[^=]*=' $words[-1])
        for file in (__fish_complete_path (string replace -- "$before" "" $words[-1]))
            echo "$before$file"
        end
        return
    end
    printf '%s\n' $lines
end
complete -c pellucid -f -a '(__pellucid_complete)'
