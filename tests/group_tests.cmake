# Lists the cases of a GoogleTest program for ctest, several to a process: those
# of one suite, at most `cases` of them. A process for each would spend more time
# on starting a sanitizer's program than on most of the tests.
#
# usage: cmake -D program=FILE -D words=WORDS -D cases=COUNT -D label=LABEL
#          -D output=FILE -P group_tests.cmake
#
# With `words` (split by commas), only cases with one of them in their names.

set(patterns "*")
if(words)
  string(REPLACE "," "*:*" patterns "*${words}*")
endif()
execute_process(COMMAND ${program} --gtest_list_tests --gtest_filter=${patterns}
  OUTPUT_VARIABLE listing COMMAND_ERROR_IS_FATAL ANY)

set(script "")
function(add_group suite part names)
  if(part GREATER 1)
    string(APPEND suite " part ${part}")
  endif()
  string(REPLACE ";" ":" names "${names}")
  # A filter that no longer fits the program would pass by running nothing.
  string(APPEND script "add_test(\"${suite}\" \"${program}\" \"--gtest_filter=${names}\")\n"
    "set_tests_properties(\"${suite}\" PROPERTIES LABELS ${label} TIMEOUT 1200\n"
    "  FAIL_REGULAR_EXPRESSION \"Running 0 tests\")\n")
  set(script "${script}" PARENT_SCOPE)
endfunction()

string(REGEX REPLACE " +#[^\n]*" "" listing "${listing}")
string(REPLACE "\n" ";" lines "${listing}")
set(suite "")
set(names "")
set(part 1)
foreach(line ${lines} "end.")
  if(line MATCHES "^  (.+)$")
    list(APPEND names "${suite}.${CMAKE_MATCH_1}")
    list(LENGTH names count)
    if(count EQUAL cases)
      add_group("${suite}" ${part} "${names}")
      set(names "")
      math(EXPR part "${part} + 1")
    endif()
  elseif(line MATCHES "^([^ ]+)\\.$")
    if(names)
      add_group("${suite}" ${part} "${names}")
    endif()
    set(suite "${CMAKE_MATCH_1}")
    set(names "")
    set(part 1)
  endif()
endforeach()
file(WRITE "${output}" "${script}")
