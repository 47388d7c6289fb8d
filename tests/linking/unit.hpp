// What a unit tells about the code that it ran. Knows nothing of the library: its reader has settings of its own.
#pragma once

#include <string>

struct Report {
    std::string settings;     ///< the name of the unit's inline namespace
    std::string tensor_type;  ///< its tensors' type, as the linker sees it
    double product;           ///< 2^-24 if a kernel rounds a product and sum once (FMA), 0 if it rounds both
    int threads;              ///< allowed to parallel loops after asking for 3
    bool checks_bounds;
};

Report plain();
Report serial();
Report checked();
Report avx2();
