// Units of the same settings share the library's functions.
#include "same_settings.hpp"

#include <algorithm>
#include <iostream>

int main() {
    const Seen here = look();
    const Seen there = look_from_other_unit();
    const bool one_function = here.function == there.function;
    const bool one_result = std::equal(here.y.begin(), here.y.end(), there.y.begin(), there.y.end());
    std::cout << "one function: " << one_function << ", one result: " << one_result << '\n';
    return one_function && one_result ? 0 : 1;
}
