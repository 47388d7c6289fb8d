// Compiled as the program is: the sets of instructions that it may use. Nothing but numbers, none of them computed when
// it runs.
#define SD_TEXT(x) #x
#define SD_IS_ONE(macro) SD_TEXT(macro)[0] == '1'  // a macro that is not defined gives its name

extern const bool sd_built_for[];
const bool sd_built_for[] = {
#define SD_SET(macro, name, leaf, subleaf, register, bit, state) SD_IS_ONE(macro),
#include "instruction_sets.inc"
};
