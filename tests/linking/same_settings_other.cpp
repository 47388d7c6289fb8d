#include "same_settings.hpp"

Seen look_from_other_unit() { return look(); }
